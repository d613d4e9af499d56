//! Functions of dates and times.

use alloc::format;

use kimberlite_row::datetime::{self, DAY, SECOND, civil, days};
use kimberlite_row::{Decimal, Interval, SqlError, SqlState, Type, Value};

use super::calendar::{to_char, to_date, to_timestamp};
use super::{
    DAT, DBL, Function, G_DAT, G_DBL, G_DEC, G_SPN, G_TST, G_TSZ, G_TXT, Gives, INT, SPN, TIM, TST, TSZ, TXT,
    bad, double, f, int, string,
};

type Answer = Result<Value, SqlError>;

pub(super) const HOUR: i64 = 3600 * SECOND;

/// Days and the time of the day of a value.
pub(super) fn parts(value: &Value) -> Option<(i64, i64)> {
    Some(match value {
        Value::Date(day) => (i64::from(*day), 0),
        Value::Time(micros) => (0, *micros),
        Value::Timestamp(stamp) | Value::TimestampTz(stamp) => (stamp.div_euclid(DAY), stamp.rem_euclid(DAY)),
        _ => return None,
    })
}

fn scaled(value: i64, scale: u8) -> Value {
    Value::Decimal(Decimal::new(i128::from(value), scale).unwrap_or(Decimal::ZERO))
}

pub(super) fn iso_week(day: i64) -> (i64, i64) {
    let thursday = day - (day + 3).rem_euclid(7) + 3;
    let year = civil(thursday).year;
    (year, (thursday - days(year, 1, 1)) / 7 + 1)
}

/// Fields that a date does not have, and those that a time of day does not.
const TIME_FIELDS: [&str; 8] = [
    "hour",
    "minute",
    "second",
    "milliseconds",
    "microseconds",
    "timezone",
    "timezone_hour",
    "timezone_minute",
];
const DATE_FIELDS: [&str; 13] = [
    "year",
    "month",
    "day",
    "quarter",
    "week",
    "dow",
    "isodow",
    "doy",
    "decade",
    "century",
    "millennium",
    "isoyear",
    "julian",
];

/// Whether two spans of time have an instant in common; a span without length is its instant.
fn overlaps(v: &[Value], _: &Type) -> Answer {
    let span = |a: &Value, b: &Value| if a <= b { (a.clone(), b.clone()) } else { (b.clone(), a.clone()) };
    let ((from, until), (other, other_until)) = (span(&v[0], &v[1]), span(&v[2], &v[3]));
    Ok(Value::Bool(match from.cmp(&other) {
        core::cmp::Ordering::Greater => from < other_until,
        core::cmp::Ordering::Less => other < until,
        core::cmp::Ordering::Equal => true,
    }))
}

/// The beginning of the stride that a time lies in, counted from an origin.
fn date_bin(v: &[Value], _: &Type) -> Answer {
    let Value::Interval(stride) = v[0] else { return Ok(Value::Null) };
    if stride.months != 0 {
        return Err(SqlError::new(
            SqlState::FeatureNotSupported,
            "timestamps cannot be binned into intervals containing months or years",
        ));
    }
    let out_of_range = || SqlError::new(SqlState::DatetimeFieldOverflow, "timestamp out of range");
    let length = i64::from(stride.days).checked_mul(DAY).and_then(|days| days.checked_add(stride.micros));
    let length = length
        .filter(|length| *length > 0)
        .ok_or_else(|| SqlError::new(SqlState::DatetimeFieldOverflow, "stride must be greater than zero"))?;
    let bin = |at: i64, origin: i64| {
        let since = at.checked_sub(origin)?;
        origin.checked_add(since - since.rem_euclid(length))
    };
    match (&v[1], &v[2]) {
        (Value::Timestamp(at), Value::Timestamp(origin)) => {
            bin(*at, *origin).map(Value::Timestamp).ok_or_else(out_of_range)
        }
        (Value::TimestampTz(at), Value::TimestampTz(origin)) => {
            bin(*at, *origin).map(Value::TimestampTz).ok_or_else(out_of_range)
        }
        _ => Ok(Value::Null),
    }
}

/// `extract(field FROM value)`.
pub fn extract(field: &str, value: &Value) -> Answer {
    if value.is_null() {
        return Ok(Value::Null);
    }
    let unknown = || {
        let of_days = matches!(value, Value::Date(_)) && TIME_FIELDS.contains(&field);
        let of_times = matches!(value, Value::Time(_)) && DATE_FIELDS.contains(&field);
        if of_days || of_times {
            let kind = if of_days { "date" } else { "time without time zone" };
            return SqlError::new(
                SqlState::FeatureNotSupported,
                format!("unit \"{field}\" not supported for type {kind}"),
            );
        }
        bad(format!("unit \"{field}\" not recognized for this type"))
    };
    if let Value::Interval(span) = value {
        let micros = span.micros;
        return Ok(match field {
            "year" | "years" => Value::Decimal(Decimal::from(i64::from(span.months / 12))),
            "month" | "months" => Value::Decimal(Decimal::from(i64::from(span.months % 12))),
            "day" | "days" => Value::Decimal(Decimal::from(i64::from(span.days))),
            "hour" | "hours" => Value::Decimal(Decimal::from(micros / HOUR)),
            "minute" | "minutes" => Value::Decimal(Decimal::from(micros / (60 * SECOND) % 60)),
            "second" | "seconds" => scaled(micros % (60 * SECOND), 6),
            "milliseconds" => scaled(micros % (60 * SECOND), 3),
            "microseconds" => Value::Decimal(Decimal::from(micros % (60 * SECOND))),
            "quarter" => Value::Decimal(Decimal::from(i64::from(span.months % 12) / 3 + 1)),
            "decade" => Value::Decimal(Decimal::from(i64::from(span.months / 120))),
            "century" => Value::Decimal(Decimal::from(i64::from(span.months / 1200))),
            "epoch" => {
                let years = i64::from(span.months / 12) * 31_557_600;
                let months = i64::from(span.months % 12) * 30 * 86_400;
                let whole = (years + months + i64::from(span.days) * 86_400) * SECOND;
                scaled(whole + micros, 6)
            }
            _ => return Err(unknown()),
        });
    }
    let (day, micros) = parts(value).ok_or_else(unknown)?;
    let date = civil(day);
    let whole = |n: i64| Ok(Value::Decimal(Decimal::from(n)));
    let clock = !matches!(value, Value::Date(_));
    let calendar = !matches!(value, Value::Time(_));
    match field {
        "hour" | "hours" if clock => whole(micros / HOUR),
        "minute" | "minutes" if clock => whole(micros / (60 * SECOND) % 60),
        "second" | "seconds" if clock => Ok(scaled(micros % (60 * SECOND), 6)),
        "milliseconds" | "millisecond" if clock => Ok(scaled(micros % (60 * SECOND), 3)),
        "microseconds" | "microsecond" if clock => whole(micros % (60 * SECOND)),
        "epoch" => Ok(if calendar && !clock { whole(day * 86_400)? } else { scaled(day * DAY + micros, 6) }),
        "timezone" | "timezone_hour" | "timezone_minute" if matches!(value, Value::TimestampTz(_)) => {
            whole(0)
        }
        _ if !calendar => Err(unknown()),
        "year" | "years" => whole(if date.year <= 0 { date.year - 1 } else { date.year }),
        "month" | "months" => whole(i64::from(date.month)),
        "day" | "days" => whole(i64::from(date.day)),
        "dow" | "dayofweek" => whole((day + 4).rem_euclid(7)),
        "isodow" => whole((day + 3).rem_euclid(7) + 1),
        "doy" | "dayofyear" => whole(day - days(date.year, 1, 1) + 1),
        "week" => whole(iso_week(day).1),
        "isoyear" => whole(iso_week(day).0),
        "quarter" => whole(i64::from(date.month - 1) / 3 + 1),
        "decade" => whole(date.year.div_euclid(10)),
        "century" => whole(if date.year > 0 { (date.year + 99) / 100 } else { date.year / 100 - 1 }),
        "millennium" => whole(if date.year > 0 { (date.year + 999) / 1000 } else { date.year / 1000 - 1 }),
        "julian" => whole(day + 2_440_588),
        _ => Err(unknown()),
    }
}

fn truncated_day(field: &str, day: i64) -> Option<i64> {
    let date = civil(day);
    let month = |m: u32| Some(days(date.year, m, 1));
    match field {
        "day" => Some(day),
        "week" => Some(day - (day + 3).rem_euclid(7)),
        "month" => month(date.month),
        "quarter" => month((date.month - 1) / 3 * 3 + 1),
        "year" => month(1),
        "decade" => Some(days(date.year.div_euclid(10) * 10, 1, 1)),
        "century" => Some(days((date.year - 1).div_euclid(100) * 100 + 1, 1, 1)),
        "millennium" => Some(days((date.year - 1).div_euclid(1000) * 1000 + 1, 1, 1)),
        _ => None,
    }
}

/// `date_trunc(field, value)`.
pub fn truncate(field: &str, value: &Value) -> Answer {
    let field = field.to_ascii_lowercase();
    let field = field.trim_end_matches('s');
    let unit = match field {
        "microsecond" => Some(1),
        "millisecond" => Some(1000),
        "second" => Some(SECOND),
        "minute" => Some(60 * SECOND),
        "hour" => Some(HOUR),
        _ => None,
    };
    let cut = |stamp: i64| -> Result<i64, SqlError> {
        match unit {
            Some(unit) => Ok(stamp - stamp.rem_euclid(unit)),
            None => truncated_day(field, stamp.div_euclid(DAY)).map(|day| day * DAY).ok_or_else(|| {
                bad(format!("unit \"{field}\" not recognized for type timestamp without time zone"))
            }),
        }
    };
    match value {
        Value::Timestamp(stamp) => cut(*stamp).map(Value::Timestamp),
        Value::TimestampTz(stamp) => cut(*stamp).map(Value::TimestampTz),
        Value::Interval(span) => {
            let mut kept = *span;
            match (unit, field) {
                (Some(unit), _) => kept.micros -= kept.micros % unit,
                (None, "day") => kept.micros = 0,
                (None, "month") => kept = Interval { months: span.months, ..Interval::default() },
                (None, "year") => kept = Interval { months: span.months / 12 * 12, ..Interval::default() },
                _ => return Err(bad(format!("unit \"{field}\" not supported for type interval"))),
            }
            Ok(Value::Interval(kept))
        }
        _ => Ok(Value::Null),
    }
}

/// Whole months, days and the rest from `b` to `a`.
fn age(v: &[Value], _: &Type) -> Answer {
    let ((mut day_a, mut time_a), (mut day_b, mut time_b)) =
        (parts(&v[0]).unwrap_or_default(), parts(&v[1]).unwrap_or_default());
    let negative = (day_a, time_a) < (day_b, time_b);
    if negative {
        core::mem::swap(&mut day_a, &mut day_b);
        core::mem::swap(&mut time_a, &mut time_b);
    }
    let (a, b) = (civil(day_a), civil(day_b));
    let mut months = (a.year - b.year) * 12 + i64::from(a.month) - i64::from(b.month);
    let mut left = i64::from(a.day) - i64::from(b.day);
    let mut micros = time_a - time_b;
    if micros < 0 {
        micros += DAY;
        left -= 1;
    }
    if left < 0 {
        months -= 1;
        left += i64::from(datetime::month_days(b.year, b.month));
    }
    let span = Interval { months: months as i32, days: left as i32, micros };
    Ok(Value::Interval(if negative { span.checked_neg().unwrap_or_default() } else { span }))
}

fn make_date(v: &[Value], _: &Type) -> Answer {
    let (year, month, day) = (int(&v[0]), int(&v[1]), int(&v[2]));
    let fits = (1..=12).contains(&month)
        && year != 0
        && year.abs() < 290_000
        && day >= 1
        && day <= i64::from(datetime::month_days(year, month as u32));
    if !fits {
        return Err(SqlError::new(
            SqlState::DatetimeFieldOverflow,
            format!("date field value out of range: {year}-{month:02}-{day:02}"),
        ));
    }
    Ok(Value::Date(days(year, month as u32, day as u32) as i32))
}

fn make_timestamp(v: &[Value], kind: &Type) -> Answer {
    let Value::Date(day) = make_date(v, kind)? else { return Ok(Value::Null) };
    let seconds = double(&v[5]);
    if !(0..=23).contains(&int(&v[3])) || !(0..=59).contains(&int(&v[4])) || !(0.0..=60.0).contains(&seconds)
    {
        return Err(SqlError::new(SqlState::DatetimeFieldOverflow, "time field value out of range"));
    }
    let micros = int(&v[3]) * HOUR + int(&v[4]) * 60 * SECOND + libm::rint(seconds * 1e6) as i64;
    Ok(Value::Timestamp(i64::from(day) * DAY + micros))
}

fn justify(v: &[Value], hours: bool, by_days: bool) -> Answer {
    let Value::Interval(mut span) = v[0] else { return Ok(Value::Null) };
    if hours {
        span.days = span.days.saturating_add((span.micros / DAY) as i32);
        span.micros %= DAY;
    }
    // Parts get one sign, that of the largest.
    if by_days {
        span.months = span.months.saturating_add(span.days / 30);
        span.days %= 30;
        let rest = if hours { (span.days, span.micros) } else { (span.days, 0) };
        if span.months > 0 && rest < (0, 0) {
            (span.months, span.days) = (span.months - 1, span.days + 30);
        } else if span.months < 0 && rest > (0, 0) {
            (span.months, span.days) = (span.months + 1, span.days - 30);
        }
    }
    if hours {
        if span.days > 0 && span.micros < 0 {
            (span.days, span.micros) = (span.days - 1, span.micros + DAY);
        } else if span.days < 0 && span.micros > 0 {
            (span.days, span.micros) = (span.days + 1, span.micros - DAY);
        }
    }
    Ok(Value::Interval(span))
}

pub(super) static TABLE: &[Function] = &[
    f("date_part", &[TXT, TST], G_DBL, |v, _| part(v)),
    f("date_part", &[TXT, TSZ], G_DBL, |v, _| part(v)),
    f("date_part", &[TXT, DAT], G_DBL, |v, _| match &v[1] {
        // It looks at a day as at its first moment, which EXTRACT does not.
        Value::Date(day) if !matches!(*day, i32::MAX | i32::MIN) => {
            part(&[v[0].clone(), Value::Timestamp(i64::from(*day) * DAY)])
        }
        _ => part(v),
    }),
    f("date_part", &[TXT, TIM], G_DBL, |v, _| part(v)),
    f("date_part", &[TXT, SPN], G_DBL, |v, _| part(v)),
    f("extract", &[TXT, TST], G_DEC, |v, _| extract(&string(&v[0]).to_lowercase(), &v[1])),
    f("extract", &[TXT, TSZ], G_DEC, |v, _| extract(&string(&v[0]).to_lowercase(), &v[1])),
    f("extract", &[TXT, DAT], G_DEC, |v, _| extract(&string(&v[0]).to_lowercase(), &v[1])),
    f("extract", &[TXT, TIM], G_DEC, |v, _| extract(&string(&v[0]).to_lowercase(), &v[1])),
    f("extract", &[TXT, SPN], G_DEC, |v, _| extract(&string(&v[0]).to_lowercase(), &v[1])),
    f("date_trunc", &[TXT, TST], G_TST, |v, _| truncate(string(&v[0]), &v[1])),
    f("date_trunc", &[TXT, TSZ], G_TSZ, |v, _| truncate(string(&v[0]), &v[1])),
    f("date_trunc", &[TXT, SPN], G_SPN, |v, _| truncate(string(&v[0]), &v[1])),
    f("age", &[TST, TST], G_SPN, age),
    f("age", &[TSZ, TSZ], G_SPN, age),
    f("make_date", &[INT, INT, INT], G_DAT, make_date),
    f("make_timestamp", &[INT, INT, INT, INT, INT, DBL], G_TST, make_timestamp),
    f("make_time", &[INT, INT, DBL], Gives::Is(Type::Time), |v, _| {
        let micros = int(&v[0]) * HOUR + int(&v[1]) * 60 * SECOND + libm::rint(double(&v[2]) * 1e6) as i64;
        let fields = (0..60).contains(&int(&v[1])) && (0.0..=60.0).contains(&double(&v[2]));
        if fields && (0..=DAY).contains(&micros) {
            Ok(Value::Time(micros))
        } else {
            Err(SqlError::new(SqlState::DatetimeFieldOverflow, "time field value out of range"))
        }
    }),
    f("make_interval", &[INT, INT, INT, INT, INT, INT, DBL], G_SPN, |v, _| {
        let n = |at: usize| v.get(at).map_or(0, int);
        let micros =
            n(4) * HOUR + n(5) * 60 * SECOND + v.get(6).map_or(0, |s| libm::rint(double(s) * 1e6) as i64);
        Ok(Value::Interval(Interval {
            months: (n(0) * 12 + n(1)) as i32,
            days: (n(2) * 7 + n(3)) as i32,
            micros,
        }))
    })
    .optional(7),
    f("to_timestamp", &[DBL], G_TSZ, |v, _| Ok(Value::TimestampTz(libm::rint(double(&v[0]) * 1e6) as i64))),
    f("to_timestamp", &[TXT, TXT], G_TSZ, to_timestamp),
    f("to_date", &[TXT, TXT], G_DAT, to_date),
    f("overlaps", &[TST, TST, TST, TST], Gives::Is(Type::Bool), overlaps),
    f("overlaps", &[TSZ, TSZ, TSZ, TSZ], Gives::Is(Type::Bool), overlaps),
    f("overlaps", &[TIM, TIM, TIM, TIM], Gives::Is(Type::Bool), overlaps),
    f("date_bin", &[SPN, TST, TST], G_TST, date_bin),
    f("date_bin", &[SPN, TSZ, TSZ], G_TSZ, date_bin),
    f("to_char", &[TST, TXT], G_TXT, to_char),
    f("to_char", &[TSZ, TXT], G_TXT, to_char),
    f("to_char", &[SPN, TXT], G_TXT, to_char),
    f("justify_hours", &[SPN], G_SPN, |v, _| justify(v, true, false)),
    f("justify_days", &[SPN], G_SPN, |v, _| justify(v, false, true)),
    f("justify_interval", &[SPN], G_SPN, |v, _| justify(v, true, true)),
    f("isfinite", &[TST], super::G_BOOL, |v, _| {
        Ok(Value::Bool(!matches!(v[0], Value::Timestamp(i64::MAX | i64::MIN))))
    }),
    f("isfinite", &[SPN], super::G_BOOL, |_, _| Ok(Value::Bool(true))),
    f("isfinite", &[DAT], super::G_BOOL, |v, _| {
        Ok(Value::Bool(!matches!(v[0], Value::Date(i32::MAX | i32::MIN))))
    }),
];

fn part(v: &[Value]) -> Answer {
    extract(&string(&v[0]).to_lowercase(), &v[1]).map(|value| match value {
        Value::Decimal(number) => Value::double(number.to_f64()),
        other => other,
    })
}
