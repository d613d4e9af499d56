//! Exact decimal numbers of up to 38 digits: a coefficient and a scale, with PostgreSQL's rules for the scale of a result.
//!
//! What does not fit is refused ([`DecimalError::TooWide`]), never rounded in silence.

use alloc::string::{String, ToString};
use core::cmp::Ordering;
use core::fmt;

/// Digits a number can hold.
pub const DIGITS_MAX: u32 = 38;

/// The largest scale: digits behind the point.
pub const SCALE_MAX: u8 = 38;

/// `coefficient / 10^scale`. Equal numbers of different scale are equal and keep their scale for display.
#[derive(Clone, Copy)]
#[repr(Rust, packed(8))]
pub struct Decimal {
    coefficient: i128,
    scale: u8,
}

/// Why there is no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecimalError {
    /// More than 38 digits.
    TooWide,
    /// Division by zero.
    DivisionByZero,
}

const fn power(exponent: u32) -> u128 {
    10u128.pow(exponent)
}

fn digits(magnitude: u128) -> u32 {
    if magnitude == 0 { 0 } else { magnitude.ilog10() + 1 }
}

/// Divides and rounds half away from zero.
fn round_divide(value: u128, by: u128) -> u128 {
    let (quotient, rest) = (value / by, value % by);
    quotient + u128::from(rest >= by - rest)
}

impl Decimal {
    /// Nothing, without digits behind the point.
    pub const ZERO: Self = Self { coefficient: 0, scale: 0 };

    /// `coefficient / 10^scale`, if that is within the limits.
    pub fn new(coefficient: i128, scale: u8) -> Option<Self> {
        (coefficient.unsigned_abs() < power(DIGITS_MAX) && scale <= SCALE_MAX)
            .then_some(Self { coefficient, scale })
    }

    fn signed(negative: bool, magnitude: u128, scale: u32) -> Result<Self, DecimalError> {
        let coefficient = i128::try_from(magnitude).map_err(|_| DecimalError::TooWide)?;
        let scale = u8::try_from(scale).map_err(|_| DecimalError::TooWide)?;
        Self::new(if negative { -coefficient } else { coefficient }, scale).ok_or(DecimalError::TooWide)
    }

    /// The digits as one number.
    pub fn coefficient(self) -> i128 {
        self.coefficient
    }

    /// How many of the digits stand behind the point.
    pub fn scale(self) -> u8 {
        self.scale
    }

    /// Whether it is zero.
    pub fn is_zero(self) -> bool {
        self.coefficient == 0
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.coefficient < 0
    }

    /// The same number with zeros at the end taken away: one form for equal numbers, to hash and to encode.
    pub fn normalized(self) -> Self {
        let (mut coefficient, mut scale) = (self.coefficient, self.scale);
        while scale > 0 && coefficient % 10 == 0 {
            coefficient /= 10;
            scale -= 1;
        }
        Self { coefficient, scale }
    }

    /// With `scale` digits behind the point, rounded half away from zero.
    pub fn rescaled(self, scale: u8) -> Result<Self, DecimalError> {
        let (coefficient, old) = (self.coefficient, self.scale);
        let magnitude = coefficient.unsigned_abs();
        let magnitude = if scale >= old {
            match power(u32::from(scale - old).min(38)).checked_mul(magnitude) {
                Some(magnitude) if scale - old <= 38 => magnitude,
                _ => return Err(DecimalError::TooWide),
            }
        } else {
            round_divide(magnitude, power(u32::from(old - scale)))
        };
        Self::signed(coefficient < 0, magnitude, u32::from(scale))
    }

    /// Rounded half away from zero at `places` behind the point; negative places round before it.
    pub fn rounded(self, places: i64) -> Result<Self, DecimalError> {
        if places >= 0 {
            return self.rescaled(places.min(i64::from(SCALE_MAX)) as u8);
        }
        let drop = places.unsigned_abs() + u64::from(self.scale);
        if drop > 38 {
            return Ok(Self::ZERO);
        }
        let magnitude = round_divide({ self.coefficient }.unsigned_abs(), power(drop as u32));
        let back = power(places.unsigned_abs() as u32);
        Self::signed(self.is_negative(), magnitude.checked_mul(back).ok_or(DecimalError::TooWide)?, 0)
    }

    /// Cut at `places` behind the point, towards zero.
    pub fn truncated(self, places: i64) -> Result<Self, DecimalError> {
        let (coefficient, scale) = (self.coefficient, self.scale);
        if places >= i64::from(scale) {
            return self.rescaled(places.min(i64::from(SCALE_MAX)) as u8);
        }
        let drop = i64::from(scale) - places;
        if drop > 38 {
            return Ok(Self::ZERO);
        }
        let cut = coefficient.unsigned_abs() / power(drop as u32);
        if places >= 0 {
            return Self::signed(coefficient < 0, cut, places as u32);
        }
        let back = power(places.unsigned_abs() as u32);
        Self::signed(coefficient < 0, cut.checked_mul(back).ok_or(DecimalError::TooWide)?, 0)
    }

    /// The largest whole number that is not larger.
    pub fn floor(self) -> Result<Self, DecimalError> {
        let unit = power(u32::from(self.scale)) as i128;
        Self::new({ self.coefficient }.div_euclid(unit), 0).ok_or(DecimalError::TooWide)
    }

    /// The smallest whole number that is not smaller.
    pub fn ceil(self) -> Result<Self, DecimalError> {
        self.negated().floor().map(Self::negated)
    }

    /// With the other sign.
    pub fn negated(self) -> Self {
        Self { coefficient: -self.coefficient, scale: self.scale }
    }

    /// Without its sign.
    pub fn abs(self) -> Self {
        Self { coefficient: { self.coefficient }.abs(), scale: self.scale }
    }

    fn aligned(self, other: Self) -> Result<(i128, i128, u8), DecimalError> {
        let scale = self.scale.max(other.scale);
        Ok((self.rescaled(scale)?.coefficient, other.rescaled(scale)?.coefficient, scale))
    }

    /// The sum; its scale is the larger one.
    pub fn add(self, other: Self) -> Result<Self, DecimalError> {
        let (a, b, scale) = self.aligned(other)?;
        Self::new(a + b, scale).ok_or(DecimalError::TooWide)
    }

    /// The difference; its scale is the larger one.
    pub fn sub(self, other: Self) -> Result<Self, DecimalError> {
        self.add(other.negated())
    }

    /// The product; its scale is the sum of both.
    pub fn mul(self, other: Self) -> Result<Self, DecimalError> {
        let product = { self.coefficient }.checked_mul(other.coefficient).ok_or(DecimalError::TooWide)?;
        Self::signed(product < 0, product.unsigned_abs(), u32::from(self.scale) + u32::from(other.scale))
    }

    /// The quotient, with the scale PostgreSQL's `select_div_scale` gives it: at least 16 significant digits.
    pub fn div(self, other: Self) -> Result<Self, DecimalError> {
        if other.is_zero() {
            return Err(DecimalError::DivisionByZero);
        }
        let wanted = division_scale(self, other);
        let mut scale = wanted;
        loop {
            match divide(self, other, scale) {
                // The digits asked for are more than fit: as many as fit, but never fewer than the operands have.
                Err(DecimalError::TooWide) if scale > u32::from(self.scale.max(other.scale)) => scale -= 1,
                done => return done,
            }
        }
    }

    /// What division leaves, with the sign of the dividend.
    pub fn rem(self, other: Self) -> Result<Self, DecimalError> {
        if other.is_zero() {
            return Err(DecimalError::DivisionByZero);
        }
        let (a, b, scale) = self.aligned(other)?;
        Self::new(a % b, scale).ok_or(DecimalError::TooWide)
    }

    /// The nearest double.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(f64::NAN)
    }

    /// The exact shortest decimal of a double with at most 15 significant digits, as PostgreSQL casts it.
    pub fn from_f64(value: f64, digits: usize) -> Option<Self> {
        if !value.is_finite() {
            return None;
        }
        Self::parse(&alloc::format!("{value:.*e}", digits - 1)).map(Self::shortened)
    }

    fn shortened(self) -> Self {
        self.normalized()
    }

    /// As a whole number, rounded half away from zero.
    pub fn to_i64(self) -> Option<i64> {
        let whole = self.rescaled(0).ok()?;
        i64::try_from(whole.coefficient).ok()
    }

    /// Digits before the point.
    pub fn whole_digits(self) -> u32 {
        digits({ self.coefficient }.unsigned_abs() / power(u32::from(self.scale)))
    }

    /// Reads `-12.340`, `1e-3`, `.5`; `None` if it is no number or does not fit.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, rest) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.find(['e', 'E']) {
            Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
            None => (rest, 0),
        };
        let (mut magnitude, mut scale, mut point, mut any) = (0u128, 0i32, false, false);
        for byte in mantissa.bytes() {
            match byte {
                b'0'..=b'9' => {
                    any = true;
                    if scale >= i32::from(SCALE_MAX) && point {
                        continue; // beyond what can be kept
                    }
                    magnitude = magnitude.checked_mul(10)?.checked_add(u128::from(byte - b'0'))?;
                    scale += i32::from(point);
                }
                b'.' if !point => point = true,
                _ => return None,
            }
        }
        if !any {
            return None;
        }
        let mut scale = scale.checked_sub(exponent)?;
        while scale < 0 {
            if magnitude == 0 {
                scale = 0;
                break;
            }
            magnitude = magnitude.checked_mul(10)?;
            scale += 1;
        }
        while scale > i32::from(SCALE_MAX) {
            magnitude = round_divide(magnitude, 10);
            scale -= 1;
        }
        Self::signed(negative, magnitude, scale as u32).ok()
    }

    /// Fits `DECIMAL(precision, scale)`: rounded to the scale; `None` if there are too many digits before the point.
    pub fn fitted(self, precision: u8, scale: u8) -> Option<Self> {
        let fitted = self.rescaled(scale).ok()?;
        (digits({ fitted.coefficient }.unsigned_abs()) <= u32::from(precision)).then_some(fitted)
    }
}

/// PostgreSQL thinks in groups of four digits: the scale gives at least 16 digits of the quotient.
fn division_scale(a: Decimal, b: Decimal) -> u32 {
    let first = |d: Decimal| -> (i32, i64) {
        let magnitude = { d.coefficient }.unsigned_abs();
        if magnitude == 0 {
            return (0, 0);
        }
        // The position of the first digit relative to the point, in groups of four.
        let lead = magnitude.ilog10().cast_signed() - i32::from(d.scale);
        let weight = lead.div_euclid(4);
        let group_low = weight * 4 + i32::from(d.scale);
        let group = if group_low >= 0 {
            magnitude / power(group_low as u32)
        } else {
            magnitude * power(group_low.unsigned_abs())
        };
        (weight, group as i64)
    };
    let ((weight_a, group_a), (weight_b, group_b)) = (first(a), first(b));
    let mut weight = weight_a - weight_b;
    if group_a <= group_b {
        weight -= 1;
    }
    let wanted = 16 - weight * 4;
    wanted.max(i32::from(a.scale)).max(i32::from(b.scale)).max(0) as u32
}

fn divide(a: Decimal, b: Decimal, scale: u32) -> Result<Decimal, DecimalError> {
    // a/10^sa : b/10^sb = q/10^scale, so q = a * 10^(scale - sa + sb) / b.
    let negative = a.is_negative() != b.is_negative();
    let mut divisor = { b.coefficient }.unsigned_abs();
    let mut quotient = { a.coefficient }.unsigned_abs();
    let shift = scale.cast_signed() - i32::from(a.scale) + i32::from(b.scale);
    if shift < 0 {
        divisor = divisor.checked_mul(power(shift.unsigned_abs().min(38))).ok_or(DecimalError::TooWide)?;
    }
    let mut rest = quotient % divisor;
    quotient /= divisor;
    for _ in 0..shift.max(0) {
        let wide = rest.checked_mul(10).ok_or(DecimalError::TooWide)?;
        quotient = quotient.checked_mul(10).ok_or(DecimalError::TooWide)?;
        quotient = quotient.checked_add(wide / divisor).ok_or(DecimalError::TooWide)?;
        rest = wide % divisor;
    }
    quotient += u128::from(rest >= divisor - rest);
    Decimal::signed(negative, quotient, scale)
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self { coefficient: i128::from(value), scale: 0 }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.coefficient, other.coefficient);
        if self.scale == other.scale {
            return a.cmp(&b);
        }
        if let Ok((a, b, _)) = self.aligned(*other) {
            return a.cmp(&b);
        }
        // Widening one overflows, so their whole parts or signs differ, or the fractions decide.
        let (unit_a, unit_b) = (power(u32::from(self.scale)) as i128, power(u32::from(other.scale)) as i128);
        (a.div_euclid(unit_a)).cmp(&b.div_euclid(unit_b)).then_with(|| {
            let (rest_a, rest_b) = (a.rem_euclid(unit_a), b.rem_euclid(unit_b));
            // Both below one: widen to the larger scale, which is at most 38 digits.
            let scale = u32::from(self.scale.max(other.scale));
            let wide_a = rest_a as u128 * power(scale - u32::from(self.scale));
            let wide_b = rest_b as u128 * power(scale - u32::from(other.scale));
            wide_a.cmp(&wide_b)
        })
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = { self.coefficient }.unsigned_abs();
        let scale = usize::from(self.scale);
        let mut text: String = magnitude.to_string();
        if scale > 0 {
            if text.len() <= scale {
                text.insert_str(0, &"0".repeat(scale + 1 - text.len()));
            }
            text.insert(text.len() - scale, '.');
        }
        if self.is_negative() {
            f.write_str("-")?;
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
