//! `exp`, `ln` and `power` of DOUBLE to the last digit: computed in pairs of floats, whose sum has twice the digits, and
//! rounded once. What PostgreSQL answers comes from a library that errs as seldom.
#![allow(clippy::many_single_char_names, reason = "the names of the field")]

/// A number as the sum of two.
#[derive(Clone, Copy)]
struct Pair(f64, f64);

/// The logarithm of 2.
const LN_2: Pair = Pair(core::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
/// Terms of the series of `exp`, whose argument is at most 0.35: the last is below 2^-104.
const TERMS: u32 = 24;

fn sum(a: f64, b: f64) -> Pair {
    let s = a + b;
    let part = s - a;
    Pair(s, (a - (s - part)) + (b - part))
}

impl Pair {
    fn add(self, other: Self) -> Self {
        let Self(s, e) = sum(self.0, other.0);
        let Self(t, f) = sum(self.1, other.1);
        let Self(s, e) = sum(s, e + t);
        sum(s, e + f)
    }

    fn mul(self, other: Self) -> Self {
        let p = self.0 * other.0;
        let e = libm::fma(self.0, other.0, -p);
        sum(p, e + (self.0 * other.1 + self.1 * other.0))
    }

    fn over(self, n: f64) -> Self {
        let q = self.0 / n;
        let r = libm::fma(-q, n, self.0) + self.1;
        sum(q, r / n)
    }

    /// `exp`, with the power of two it is to be multiplied by.
    fn exp(self) -> (Self, i32) {
        let k = libm::rint(self.0 / LN_2.0);
        let r = self.add(LN_2.mul(Pair(-k, 0.0)));
        let mut series = Pair(1.0, 0.0);
        for n in (1..=TERMS).rev() {
            series = Pair(1.0, 0.0).add(r.mul(series).over(f64::from(n)));
        }
        #[allow(clippy::cast_possible_truncation, reason = "an argument is below 1000")]
        (series, k as i32)
    }
}

/// The logarithm of a positive number that is not subnormal.
fn ln_pair(x: f64) -> Pair {
    // One step of Newton's method from the logarithm of one float.
    let first = libm::log(x);
    let (inverse, power) = Pair(-first, 0.0).exp();
    // x * exp(-first), which is near 1; a part of the power is put on each factor, since neither alone may bear it.
    let scaled = Pair(libm::ldexp(x, power), 0.0).mul(inverse);
    let apart = scaled.add(Pair(-1.0, 0.0));
    let square = apart.mul(apart).over(2.0);
    Pair(first, 0.0).add(apart).add(Pair(-square.0, -square.1))
}

fn is_whole(x: f64) -> bool {
    libm::fabs(x - libm::rint(x)) <= 0.0
}

/// Whether the pairs hold all of the way: neither too large nor too small.
fn ordinary(x: f64) -> bool {
    x.is_finite() && (1e-290..1e290).contains(&libm::fabs(x))
}

/// `exp`.
pub(super) fn exp(x: f64) -> f64 {
    if !x.is_finite() || libm::fabs(x) > 700.0 {
        return libm::exp(x);
    }
    let (Pair(high, low), power) = Pair(x, 0.0).exp();
    libm::ldexp(high + low, power)
}

/// The natural logarithm.
pub(super) fn ln(x: f64) -> f64 {
    if !ordinary(x) || x < 0.0 {
        return libm::log(x);
    }
    let Pair(high, low) = ln_pair(x);
    high + low
}

/// A power.
pub(super) fn pow(x: f64, y: f64) -> f64 {
    let rough = libm::pow(x, y);
    if !ordinary(x) || !ordinary(y) || !ordinary(rough) || x < 0.0 || is_whole(rough) {
        return rough;
    }
    let (Pair(high, low), power) = ln_pair(x).mul(Pair(y, 0.0)).exp();
    libm::ldexp(high + low, power)
}
