//! Functions of numbers. Floating point comes from `libm`, so every machine gives the same bits.

use kimberlite_row::cast::decimal_error;
use kimberlite_row::text::integer;
use kimberlite_row::{Decimal, SqlError, SqlState, Type, Value};

use super::precise;
use super::{BIG, DBL, DEC, Function, G_BIG, G_DBL, G_DEC, G_INT, INT, decimal, double, f, int};

type Answer = Result<Value, SqlError>;

fn out(value: f64) -> Answer {
    if value.is_infinite() {
        return Err(SqlError::new(SqlState::NumericValueOutOfRange, "value out of range: overflow"));
    }
    Ok(Value::double(value))
}

fn exact(number: Result<Decimal, kimberlite_row::DecimalError>) -> Answer {
    number.map(Value::Decimal).map_err(decimal_error)
}

macro_rules! float {
    ($($name:ident = $code:expr;)*) => { $(fn $name(v: &[Value], _: &Type) -> Answer { let code: fn(f64) -> f64 = $code; out(code(double(&v[0]))) })* };
}

float! {
    ceil = libm::ceil; floor = libm::floor; round = libm::rint; trunc = libm::trunc; cbrt = libm::cbrt;
    sin = libm::sin; cos = libm::cos; tan = libm::tan; atan = libm::atan; sinh = libm::sinh; cosh = libm::cosh;
    tanh = libm::tanh; degrees = |x| x * (180.0 / core::f64::consts::PI); radians = |x| x * (core::f64::consts::PI / 180.0);
    cot = |x| 1.0 / libm::tan(x); asinh = libm::asinh;
}

fn domain(v: &[Value], fits: fn(f64) -> bool, code: fn(f64) -> f64) -> Answer {
    let x = double(&v[0]);
    if !fits(x) && !x.is_nan() {
        return Err(SqlError::new(SqlState::NumericValueOutOfRange, "input is out of range"));
    }
    out(code(x))
}

/// A function of an angle in degrees: exact where the sine of a multiple of thirty is.
fn in_degrees(degrees: f64, code: fn(f64) -> f64, shift: f64) -> f64 {
    let turned = libm::fmod(libm::fmod(degrees + shift, 360.0) + 360.0, 360.0);
    for (angle, sine) in [
        (0.0, 0.0),
        (30.0, 0.5),
        (90.0, 1.0),
        (150.0, 0.5),
        (180.0, 0.0),
        (210.0, -0.5),
        (270.0, -1.0),
        (330.0, -0.5),
    ] {
        if libm::fabs(turned - angle) < f64::EPSILON {
            return sine;
        }
    }
    code(degrees * (core::f64::consts::PI / 180.0))
}

fn sqrt(v: &[Value], _: &Type) -> Answer {
    if double(&v[0]) < 0.0 {
        return Err(SqlError::new(
            SqlState::InvalidArgumentForPower,
            "cannot take square root of a negative number",
        ));
    }
    out(libm::sqrt(double(&v[0])))
}

/// Sixteen significant digits, as PostgreSQL's numeric functions give at least.
fn numeric(value: f64) -> Answer {
    if !value.is_finite() {
        return Err(SqlError::new(SqlState::NumericValueOutOfRange, "value overflows numeric format"));
    }
    let magnitude = if value == 0.0 { 0.0 } else { libm::floor(libm::log10(libm::fabs(value))) };
    let places = (15.0 - magnitude).clamp(0.0, 30.0) as usize;
    Decimal::parse(&alloc::format!("{value:.places$}"))
        .map(Value::Decimal)
        .ok_or_else(|| SqlError::new(SqlState::NumericValueOutOfRange, "value overflows numeric format"))
}

/// Digits of a root: what the long-hand method holds between two of them stays below `u128::MAX`.
const ROOT_DIGITS: u32 = 34;

fn sqrt_numeric(v: &[Value], kind: &Type) -> Answer {
    sqrt(v, kind)?;
    let number = decimal(&v[0]);
    // Sixteen significant digits, and as many places as were given.
    let magnitude = libm::floor(libm::log10(number.to_f64().max(1e-38)) / 2.0);
    let places = (15.0 - magnitude).clamp(0.0, 30.0).max(f64::from(number.scale())) as u8;
    root(number, places).map_or_else(|| numeric(libm::sqrt(number.to_f64())), |root| Ok(Value::Decimal(root)))
}

/// The root of a number that is not negative, with as many places as it has.
pub(super) fn root_alike(number: Decimal) -> Answer {
    root(number, number.scale())
        .map_or_else(|| numeric(libm::sqrt(number.to_f64())), |root| Ok(Value::Decimal(root)))
}

/// The root of a number that is not negative, with so many places; none if it has too many digits.
fn root(number: Decimal, places: u8) -> Option<Decimal> {
    let even =
        if number.scale().is_multiple_of(2) { number } else { number.rescaled(number.scale() + 1).ok()? };
    let digits = alloc::format!("{}", even.coefficient());
    let whole = digits.len() + digits.len() % 2;
    let fed = (whole / 2) as i64 + i64::from(places) - i64::from(even.scale() / 2);
    if fed > i64::from(ROOT_DIGITS) {
        return None;
    }
    // Pairs of digits from the left, then zeros: long-hand.
    let mut pairs =
        core::iter::repeat_n(b'0', whole - digits.len()).chain(digits.bytes()).map(|c| u128::from(c - b'0'));
    let (mut root, mut rest) = (0_u128, 0_u128);
    for _ in 0..fed.max(0) {
        let pair = pairs.next().unwrap_or(0) * 10 + pairs.next().unwrap_or(0);
        rest = rest * 100 + pair;
        let digit = (1..=9).rev().find(|d| (root * 20 + d) * d <= rest).unwrap_or(0);
        rest -= (root * 20 + digit) * digit;
        root = root * 10 + digit;
    }
    let up = rest > root;
    Decimal::new(i128::try_from(root).ok()? + i128::from(up), places)
}

fn logarithm(x: f64, code: fn(f64) -> f64) -> Result<f64, SqlError> {
    if x == 0.0 {
        return Err(SqlError::new(SqlState::InvalidArgumentForLogarithm, "cannot take logarithm of zero"));
    }
    if x < 0.0 {
        return Err(SqlError::new(
            SqlState::InvalidArgumentForLogarithm,
            "cannot take logarithm of a negative number",
        ));
    }
    Ok(code(x))
}

#[allow(clippy::float_cmp, reason = "exactly")]
fn is_whole(x: f64) -> bool {
    libm::floor(x) == x
}

/// A result that may be infinite if an argument is.
fn endless(value: f64, given: &[Value]) -> Answer {
    if given.iter().all(|given| double(given).is_finite()) { out(value) } else { Ok(Value::Double(value)) }
}

fn power(a: f64, b: f64) -> Result<f64, SqlError> {
    let refuse = |text: &str| Err(SqlError::new(SqlState::InvalidArgumentForPower, text));
    if a == 0.0 && b < 0.0 {
        return refuse("zero raised to a negative power is undefined");
    }
    if a < 0.0 && !is_whole(b) {
        return refuse("a negative number raised to a non-integer power yields a complex result");
    }
    Ok(precise::pow(a, b))
}

fn power_numeric(v: &[Value], _: &Type) -> Answer {
    let (base, exponent) = (decimal(&v[0]), decimal(&v[1]));
    power(base.to_f64(), exponent.to_f64())?;
    if let Some(count) = exponent.to_i64().filter(|n| (0..=128).contains(n) && Decimal::from(*n) == exponent)
    {
        let mut product = Ok(Decimal::from(1));
        for _ in 0..count {
            product = product.and_then(|p: Decimal| p.mul(base));
        }
        if let Ok(product) = product {
            let places = product.scale().max(16);
            return exact(product.rescaled(places).or(Ok(product)));
        }
    }
    numeric(libm::pow(base.to_f64(), exponent.to_f64()))
}

fn sign(v: &[Value], _: &Type) -> Answer {
    let x = double(&v[0]);
    Ok(Value::double(if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x
    }))
}

fn gcd_of(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

fn gcd(v: &[Value], kind: &Type) -> Answer {
    let value = gcd_of(int(&v[0]).unsigned_abs(), int(&v[1]).unsigned_abs());
    i64::try_from(value).map_err(|_| kimberlite_row::text::out_of_range(kind)).and_then(|n| integer(n, kind))
}

fn lcm(v: &[Value], kind: &Type) -> Answer {
    let (a, b) = (int(&v[0]).unsigned_abs(), int(&v[1]).unsigned_abs());
    if a == 0 || b == 0 {
        return Ok(Value::Int(0));
    }
    (a / gcd_of(a, b))
        .checked_mul(b)
        .and_then(|n| i64::try_from(n).ok())
        .ok_or_else(|| kimberlite_row::text::out_of_range(kind))
        .and_then(|n| integer(n, kind))
}

fn remainder(v: &[Value], kind: &Type) -> Answer {
    crate::eval::arithmetic(crate::expr::Arithmetic::Rem, &v[0], &v[1], kind)
}

fn div(v: &[Value], _: &Type) -> Answer {
    exact(
        decimal(&v[0])
            .div(decimal(&v[1]))
            .and_then(|q| {
                // The quotient was rounded: the exact whole part comes from the remainder.
                let rest = decimal(&v[0]).rem(decimal(&v[1]))?;
                decimal(&v[0]).sub(rest)?.div(decimal(&v[1])).or(Ok(q))
            })
            .and_then(|q| q.rounded(0)),
    )
}

fn factorial(v: &[Value], _: &Type) -> Answer {
    let n = int(&v[0]);
    if n < 0 {
        return Err(SqlError::new(
            SqlState::NumericValueOutOfRange,
            "factorial of a negative number is undefined",
        ));
    }
    let mut product = Ok(Decimal::from(1));
    for i in 2..=n.min(64) {
        product = product.and_then(|p: Decimal| p.mul(Decimal::from(i)));
    }
    if n > 64 { Err(kimberlite_row::text::too_wide()) } else { exact(product) }
}

fn pick(v: &[Value], largest: bool) -> Value {
    let present = v.iter().filter(|v| !v.is_null());
    if largest { present.max() } else { present.min() }.cloned().unwrap_or_default()
}

#[allow(clippy::float_cmp, reason = "only equal bounds divide by zero")]
fn width_bucket(v: &[Value], _: &Type) -> Answer {
    let (x, low, high, count) = (double(&v[0]), double(&v[1]), double(&v[2]), int(&v[3]));
    if count <= 0 || low == high {
        return Err(SqlError::new(
            SqlState::InvalidArgumentForWidthBucket,
            if count <= 0 {
                "count must be greater than zero"
            } else {
                "lower bound cannot equal upper bound"
            },
        ));
    }
    let place = (x - low) / (high - low) * count as f64;
    Ok(Value::Int(if place < 0.0 {
        0
    } else if place >= count as f64 {
        count + 1
    } else {
        place as i64 + 1
    }))
}

pub(super) static TABLE: &[Function] = &[
    f("abs", &[INT], G_INT, |v, k| {
        int(&v[0])
            .checked_abs()
            .ok_or_else(|| kimberlite_row::text::out_of_range(k))
            .and_then(|n| integer(n, k))
    }),
    f("abs", &[BIG], G_BIG, |v, k| {
        int(&v[0]).checked_abs().map(Value::Int).ok_or_else(|| kimberlite_row::text::out_of_range(k))
    }),
    f("abs", &[DEC], G_DEC, |v, _| Ok(Value::Decimal(decimal(&v[0]).abs()))),
    f("abs", &[DBL], G_DBL, |v, _| Ok(Value::double(libm::fabs(double(&v[0]))))),
    f("ceil", &[DEC], G_DEC, |v, _| exact(decimal(&v[0]).ceil())),
    f("ceil", &[DBL], G_DBL, ceil),
    f("ceiling", &[DEC], G_DEC, |v, _| exact(decimal(&v[0]).ceil())),
    f("ceiling", &[DBL], G_DBL, ceil),
    f("floor", &[DEC], G_DEC, |v, _| exact(decimal(&v[0]).floor())),
    f("floor", &[DBL], G_DBL, floor),
    f("round", &[DEC], G_DEC, |v, _| exact(decimal(&v[0]).rounded(0))),
    f("round", &[DBL], G_DBL, round),
    f("round", &[DEC, INT], G_DEC, |v, _| exact(decimal(&v[0]).rounded(int(&v[1])))),
    f("trunc", &[DEC], G_DEC, |v, _| exact(decimal(&v[0]).truncated(0))),
    f("trunc", &[DBL], G_DBL, trunc),
    f("trunc", &[DEC, INT], G_DEC, |v, _| exact(decimal(&v[0]).truncated(int(&v[1])))),
    f("sqrt", &[DEC], G_DEC, sqrt_numeric),
    f("sqrt", &[DBL], G_DBL, sqrt),
    f("cbrt", &[DBL], G_DBL, cbrt),
    f("exp", &[DEC], G_DEC, |v, _| numeric(libm::exp(double(&v[0])))),
    f("exp", &[DBL], G_DBL, |v, _| endless(precise::exp(double(&v[0])), &v[..1])),
    f("ln", &[DEC], G_DEC, |v, _| logarithm(double(&v[0]), libm::log).and_then(numeric)),
    f("ln", &[DBL], G_DBL, |v, _| logarithm(double(&v[0]), precise::ln).and_then(out)),
    f("log", &[DEC], G_DEC, |v, _| logarithm(double(&v[0]), libm::log10).and_then(numeric)),
    f("log", &[DBL], G_DBL, |v, _| logarithm(double(&v[0]), libm::log10).and_then(out)),
    f("log10", &[DEC], G_DEC, |v, _| logarithm(double(&v[0]), libm::log10).and_then(numeric)),
    f("log10", &[DBL], G_DBL, |v, _| logarithm(double(&v[0]), libm::log10).and_then(out)),
    f("log", &[DEC, DEC], G_DEC, |v, _| {
        let (base, x) = (logarithm(double(&v[0]), libm::log)?, logarithm(double(&v[1]), libm::log)?);
        if base == 0.0 {
            Err(SqlError::new(SqlState::DivisionByZero, "division by zero"))
        } else {
            numeric(x / base)
        }
    }),
    f("power", &[DEC, DEC], G_DEC, power_numeric),
    f("power", &[DBL, DBL], G_DBL, |v, _| power(double(&v[0]), double(&v[1])).and_then(|n| endless(n, v))),
    f("pow", &[DEC, DEC], G_DEC, power_numeric),
    f("pow", &[DBL, DBL], G_DBL, |v, _| power(double(&v[0]), double(&v[1])).and_then(|n| endless(n, v))),
    f("mod", &[INT, INT], G_INT, remainder),
    f("mod", &[BIG, BIG], G_BIG, remainder),
    f("mod", &[DEC, DEC], G_DEC, remainder),
    f("div", &[DEC, DEC], G_DEC, div),
    f("sign", &[DEC], G_DEC, |v, _| {
        Ok(Value::Decimal(Decimal::from(decimal(&v[0]).coefficient().signum() as i64)))
    }),
    f("sign", &[DBL], G_DBL, sign),
    f("pi", &[], G_DBL, |_, _| Ok(Value::Double(core::f64::consts::PI))),
    f("sin", &[DBL], G_DBL, sin),
    f("cos", &[DBL], G_DBL, cos),
    f("tan", &[DBL], G_DBL, tan),
    f("cot", &[DBL], G_DBL, cot),
    f("sinh", &[DBL], G_DBL, sinh),
    f("cosh", &[DBL], G_DBL, cosh),
    f("tanh", &[DBL], G_DBL, tanh),
    f("asinh", &[DBL], G_DBL, asinh),
    f("asin", &[DBL], G_DBL, |v, _| domain(v, |x| libm::fabs(x) <= 1.0, libm::asin)),
    f("acos", &[DBL], G_DBL, |v, _| domain(v, |x| libm::fabs(x) <= 1.0, libm::acos)),
    f("acosh", &[DBL], G_DBL, |v, _| domain(v, |x| x >= 1.0, libm::acosh)),
    f("atanh", &[DBL], G_DBL, |v, _| domain(v, |x| libm::fabs(x) <= 1.0, libm::atanh)),
    f("atan", &[DBL], G_DBL, atan),
    f("atan2", &[DBL, DBL], G_DBL, |v, _| out(libm::atan2(double(&v[0]), double(&v[1])))),
    f("degrees", &[DBL], G_DBL, degrees),
    f("radians", &[DBL], G_DBL, radians),
    f("gcd", &[INT, INT], G_INT, gcd),
    f("gcd", &[BIG, BIG], G_BIG, gcd),
    f("lcm", &[INT, INT], G_INT, lcm),
    f("lcm", &[BIG, BIG], G_BIG, lcm),
    f("factorial", &[BIG], G_DEC, factorial),
    f("width_bucket", &[DBL, DBL, DBL, INT], G_INT, width_bucket),
    f("scale", &[DEC], G_INT, |v, _| Ok(Value::Int(i64::from(decimal(&v[0]).scale())))),
    f("min_scale", &[DEC], G_INT, |v, _| Ok(Value::Int(i64::from(decimal(&v[0]).normalized().scale())))),
    f("sind", &[DBL], G_DBL, |v, _| out(in_degrees(double(&v[0]), libm::sin, 0.0))),
    f("cosd", &[DBL], G_DBL, |v, _| out(in_degrees(double(&v[0]), libm::cos, 90.0))),
    f("tand", &[DBL], G_DBL, |v, _| {
        let x = double(&v[0]);
        out(in_degrees(x, libm::sin, 0.0) / in_degrees(x, libm::cos, 90.0))
    }),
    f("num_nulls", &[super::Arg::Any], G_INT, |v, _| {
        Ok(Value::Int(v.iter().filter(|v| v.is_null()).count() as i64))
    })
    .variadic()
    .lenient(),
    f("num_nonnulls", &[super::Arg::Any], G_INT, |v, _| {
        Ok(Value::Int(v.iter().filter(|v| !v.is_null()).count() as i64))
    })
    .variadic()
    .lenient(),
    f("trim_scale", &[DEC], G_DEC, |v, _| Ok(Value::Decimal(decimal(&v[0]).normalized()))),
    // `greatest` and `least` are unified by the binder.
    f("greatest", &[super::Arg::Any], super::Gives::Same(0), |v, _| Ok(pick(v, true))).variadic().lenient(),
    f("least", &[super::Arg::Any], super::Gives::Same(0), |v, _| Ok(pick(v, false))).variadic().lenient(),
    f("bit_and_of", &[BIG, BIG], super::Gives::Same(0), |v, _| Ok(Value::Int(int(&v[0]) & int(&v[1])))),
    f("bit_or_of", &[BIG, BIG], super::Gives::Same(0), |v, _| Ok(Value::Int(int(&v[0]) | int(&v[1])))),
    f("bit_xor_of", &[BIG, BIG], super::Gives::Same(0), |v, _| Ok(Value::Int(int(&v[0]) ^ int(&v[1])))),
    f("bit_not_of", &[BIG], super::Gives::Same(0), |v, _| Ok(Value::Int(!int(&v[0])))),
    f("shift_left_of", &[BIG, BIG], super::Gives::Same(0), |v, k| {
        let bits = if *k == Type::BigInt { 64 } else { 32 };
        let wide = int(&v[0]).wrapping_shl((int(&v[1]) & (bits - 1)) as u32);
        Ok(Value::Int(if bits == 32 { i64::from(wide as i32) } else { wide }))
    }),
    f("shift_right_of", &[BIG, BIG], super::Gives::Same(0), |v, k| {
        let bits = if *k == Type::BigInt { 64 } else { 32 };
        Ok(Value::Int(int(&v[0]) >> (int(&v[1]) & (bits - 1))))
    }),
];
