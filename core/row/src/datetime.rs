//! Dates, times and intervals: civil calendar arithmetic, reading and writing as PostgreSQL does with `DateStyle = ISO`.
//!
//! Days and microseconds count from 1970-01-01 00:00 UTC. The extreme values are `infinity` and `-infinity`.
//! Calendar algorithms: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Write as _;

/// Microseconds of a second.
pub const SECOND: i64 = 1_000_000;
/// Microseconds of a day.
pub const DAY: i64 = 86_400 * SECOND;
/// The first day: 4713-01-01 BC.
pub const DAYS_MIN: i64 = -2_440_588;
/// The day after the last: 294277-01-01.
pub const DAYS_MAX: i64 = 106_751_991;

/// A span of months, days and microseconds, each counted for itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Interval {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
}

impl Interval {
    /// Its length for comparison: a month has 30 days, a day 24 hours.
    pub fn length(self) -> i128 {
        (i128::from(self.months) * 30 + i128::from(self.days)) * i128::from(DAY) + i128::from(self.micros)
    }

    /// The sum, unless a field overflows.
    pub fn checked_add(self, other: Self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_add(other.months)?,
            days: self.days.checked_add(other.days)?,
            micros: self.micros.checked_add(other.micros)?,
        })
    }

    /// With the other sign, unless a field overflows.
    pub fn checked_neg(self) -> Option<Self> {
        Some(Self {
            months: self.months.checked_neg()?,
            days: self.days.checked_neg()?,
            micros: self.micros.checked_neg()?,
        })
    }

    /// Times a factor; fractions of a month flow into days, of a day into microseconds.
    pub fn scaled(self, factor: f64) -> Option<Self> {
        let months = f64::from(self.months) * factor;
        let whole_months = libm::trunc(months);
        let days = f64::from(self.days) * factor + (months - whole_months) * 30.0;
        let days = libm::round(days * 1e6) / 1e6;
        let whole_days = libm::trunc(days);
        let micros = libm::rint(self.micros as f64 * factor + (days - whole_days) * DAY as f64);
        let fits = whole_months.abs() < 2e9 && whole_days.abs() < 2e9 && micros.abs() < 9e18;
        fits.then_some(Self { months: whole_months as i32, days: whole_days as i32, micros: micros as i64 })
    }
}

/// A day of the calendar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Civil {
    /// Year; 0 is 1 BC.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day, 1 to 31.
    pub day: u32,
}

/// The date of a day.
pub fn civil(days: i64) -> Civil {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = (doy - (153 * mp + 2) / 5 + 1) as u32;
    let month = if mp < 10 { mp + 3 } else { mp - 9 } as u32;
    Civil { year: yoe + era * 400 + i64::from(month <= 2), month, day }
}

/// The day of a date that exists.
pub fn days(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let mp = i64::from((month + 9) % 12);
    let doy = (153 * mp + 2) / 5 + i64::from(day) - 1;
    let doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    era * 146_097 + doe - 719_468
}

/// Days of a month.
pub fn month_days(year: i64, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Adds months and keeps the day, or takes the month's last one.
pub fn add_months(day: i64, months: i64) -> Option<i64> {
    let date = civil(day);
    let total = date.year.checked_mul(12)?.checked_add(i64::from(date.month) - 1)?.checked_add(months)?;
    let (year, month) = (total.div_euclid(12), total.rem_euclid(12) as u32 + 1);
    let sum = days(year, month, date.day.min(month_days(year, month)));
    (DAYS_MIN..DAYS_MAX).contains(&sum).then_some(sum)
}

/// Adds an interval to a timestamp: months, then days, then microseconds.
pub fn add_interval(stamp: i64, by: Interval) -> Option<i64> {
    if stamp == i64::MAX || stamp == i64::MIN {
        return Some(stamp);
    }
    let day = add_months(stamp.div_euclid(DAY), i64::from(by.months))? + i64::from(by.days);
    let sum = day.checked_mul(DAY)?.checked_add(stamp.rem_euclid(DAY))?.checked_add(by.micros)?;
    (DAYS_MIN..DAYS_MAX).contains(&sum.div_euclid(DAY)).then_some(sum)
}

fn write_date(out: &mut String, day: i64) -> bool {
    let date = civil(day);
    let bc = date.year <= 0;
    let year = if bc { 1 - date.year } else { date.year };
    let _ = write!(out, "{year:04}-{:02}-{:02}", date.month, date.day);
    bc
}

fn write_time(out: &mut String, micros: i64) {
    let (seconds, fraction) = (micros / SECOND, micros % SECOND);
    let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    write_fraction(out, fraction);
}

fn write_fraction(out: &mut String, fraction: i64) {
    if fraction != 0 {
        let digits = format!("{fraction:06}");
        let _ = write!(out, ".{}", digits.trim_end_matches('0'));
    }
}

/// `2020-02-29`, `0044-03-15 BC`, `infinity`.
pub fn date_text(day: i32) -> String {
    match day {
        i32::MAX => "infinity".to_string(),
        i32::MIN => "-infinity".to_string(),
        _ => {
            let mut out = String::new();
            if write_date(&mut out, i64::from(day)) {
                out.push_str(" BC");
            }
            out
        }
    }
}

/// `12:34:56.7`.
pub fn time_text(micros: i64) -> String {
    let mut out = String::new();
    write_time(&mut out, micros);
    out
}

/// `2020-02-29 12:34:56`, with `+00` behind if `zone`.
pub fn timestamp_text(stamp: i64, zone: bool) -> String {
    match stamp {
        i64::MAX => "infinity".to_string(),
        i64::MIN => "-infinity".to_string(),
        _ => {
            let mut out = String::new();
            let bc = write_date(&mut out, stamp.div_euclid(DAY));
            out.push(' ');
            write_time(&mut out, stamp.rem_euclid(DAY));
            if zone {
                out.push_str("+00");
            }
            if bc {
                out.push_str(" BC");
            }
            out
        }
    }
}

/// `1 year 2 mons 3 days 04:05:06`.
pub fn interval_text(span: Interval) -> String {
    let mut out = String::new();
    let mut part = |count: i64, unit: &str, negative_before: &mut bool| {
        if count != 0 {
            if !out.is_empty() {
                out.push(' ');
            }
            let plus = if *negative_before && count > 0 { "+" } else { "" };
            let plural = if count == 1 { "" } else { "s" };
            let _ = write!(out, "{plus}{count} {unit}{plural}");
            *negative_before = count < 0;
        }
    };
    let mut negative = false;
    part(i64::from(span.months / 12), "year", &mut negative);
    part(i64::from(span.months % 12), "mon", &mut negative);
    part(i64::from(span.days), "day", &mut negative);
    if span.micros != 0 || out.is_empty() {
        if !out.is_empty() {
            out.push(' ');
        }
        if span.micros < 0 {
            out.push('-');
        } else if negative {
            out.push('+');
        }
        let micros = span.micros.unsigned_abs();
        let (seconds, fraction) = (micros / SECOND as u64, micros % SECOND as u64);
        let _ = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        write_fraction(&mut out, fraction as i64);
    }
    out
}

/// Why a text is no date or time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TimeError {
    /// Not of the form.
    Syntax,
    /// A field is out of range, or the day does not exist.
    Range,
}

/// What a text said: a day, a time of day, an offset from UTC in seconds.
#[derive(Clone, Copy, Default, Debug)]
struct Fields {
    day: Option<i64>,
    micros: Option<i64>,
    offset: Option<i64>,
    infinite: Option<bool>,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn month_of(word: &str) -> Option<u32> {
    let word = word.to_ascii_lowercase();
    let short = word.get(..3)?;
    MONTHS.iter().position(|m| *m == short).map(|at| at as u32 + 1)
}

fn number<T: core::str::FromStr>(text: &str) -> Result<T, TimeError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TimeError::Syntax);
    }
    text.parse().map_err(|_| TimeError::Range)
}

fn checked_day(year: i64, month: u32, day: u32) -> Result<i64, TimeError> {
    if !(1..=12).contains(&month) || day == 0 || year.abs() > 300_000 || day > month_days(year, month) {
        return Err(TimeError::Range);
    }
    let day = days(year, month, day);
    if (DAYS_MIN..DAYS_MAX).contains(&day) { Ok(day) } else { Err(TimeError::Range) }
}

fn parse_day(text: &str) -> Result<i64, TimeError> {
    let separator = text.chars().find(|c| !c.is_ascii_alphanumeric());
    let Some(separator) = separator else {
        if text.len() == 8 && text.is_ascii() {
            return checked_day(number(&text[..4])?, number(&text[4..6])?, number(&text[6..])?);
        }
        if text.len() == 6 && text.is_ascii() {
            let year: i64 = number(&text[..2])?;
            let century = if year < 70 { 2000 } else { 1900 };
            return checked_day(year + century, number(&text[2..4])?, number(&text[4..])?);
        }
        return Err(TimeError::Syntax);
    };
    let parts: Vec<&str> = text.split(separator).collect();
    let [first, second, third] = parts[..] else { return Err(TimeError::Syntax) };
    if let Some(month) = month_of(second) {
        return checked_day(number(third)?, month, number(first)?);
    }
    if first.len() >= 3 {
        return checked_day(number(first)?, number(second)?, number(third)?);
    }
    // Month, day, year: DateStyle MDY.
    let year: i64 = number(third)?;
    let year = if third.len() > 2 { year } else { year + if year < 70 { 2000 } else { 1900 } };
    checked_day(year, number(first)?, number(second)?)
}

fn parse_clock(text: &str) -> Result<i64, TimeError> {
    let mut parts = text.split(':');
    let hour: i64 = number(parts.next().ok_or(TimeError::Syntax)?)?;
    let minute: i64 = number(parts.next().ok_or(TimeError::Syntax)?)?;
    let micros = match parts.next() {
        None => 0,
        Some(seconds) => parse_seconds(seconds)?,
    };
    let total = (hour * 60 + minute) * 60 * SECOND + micros;
    if parts.next().is_some() {
        return Err(TimeError::Syntax);
    }
    if hour > 24 || minute > 59 || micros > 60 * SECOND || total > DAY {
        return Err(TimeError::Range);
    }
    Ok(total)
}

fn parse_seconds(text: &str) -> Result<i64, TimeError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = number(whole)?;
    Ok(whole.checked_mul(SECOND).ok_or(TimeError::Range)? + parse_fraction(fraction)?)
}

/// Digits behind the point as microseconds, rounded.
fn parse_fraction(text: &str) -> Result<i64, TimeError> {
    let (mut micros, mut unit) = (0, 100_000);
    for (at, byte) in text.bytes().enumerate() {
        if !byte.is_ascii_digit() {
            return Err(TimeError::Syntax);
        }
        let digit = i64::from(byte - b'0');
        if at < 6 {
            micros += digit * unit;
            unit /= 10;
        } else if at == 6 && digit >= 5 {
            micros += 1;
        }
    }
    Ok(micros)
}

fn parse_offset(text: &str) -> Result<i64, TimeError> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let body = &text[1..];
    let (hours, minutes) = match body.split_once(':') {
        Some((h, m)) => (number::<i64>(h)?, number::<i64>(m)?),
        None if body.len() == 4 => (number(&body[..2])?, number(&body[2..])?),
        None => (number(body)?, 0),
    };
    if hours > 15 || minutes > 59 { Err(TimeError::Range) } else { Ok(sign * (hours * 3600 + minutes * 60)) }
}

fn parse_fields(text: &str) -> Result<Fields, TimeError> {
    let mut fields = Fields::default();
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "infinity" => return Ok(Fields { infinite: Some(true), ..fields }),
        "-infinity" => return Ok(Fields { infinite: Some(false), ..fields }),
        "epoch" => return Ok(Fields { day: Some(0), ..fields }),
        _ => {}
    }
    if !text.is_ascii() {
        return Err(TimeError::Syntax);
    }
    let mut spaced = String::new();
    for (at, c) in text.char_indices() {
        // The `T` between date and time stands between two digits.
        let between = |i: usize| text.as_bytes().get(i).is_some_and(u8::is_ascii_digit);
        let is_t = (c == 'T' || c == 't') && at > 0 && between(at - 1) && between(at + 1);
        spaced.push(if is_t || c == ',' { ' ' } else { c });
    }
    let mut words: Vec<&str> = spaced.split_whitespace().collect();
    let (mut bc, mut pm) = (false, None);
    words.retain(|word| match word.to_ascii_lowercase().as_str() {
        "bc" => {
            bc = true;
            false
        }
        "ad" => false,
        "am" => {
            pm = Some(false);
            false
        }
        "pm" => {
            pm = Some(true);
            false
        }
        _ => true,
    });
    // `Feb 10 17:32:01 1997`: the year behind the time.
    if words.len() >= 4 && words[2].contains(':') && words[3].bytes().all(|byte| byte.is_ascii_digit()) {
        words.swap(2, 3);
    }
    // `January 8, 1999` and `8 Jan 1999`.
    if words.len() >= 3
        && (month_of(words[0]).is_some() || month_of(words[1]).is_some())
        && fields.day.is_none()
    {
        let month_first = month_of(words[0]).is_some();
        let (month, day) = if month_first { (words[0], words[1]) } else { (words[1], words[0]) };
        let month = month_of(month).ok_or(TimeError::Syntax)?;
        fields.day = Some(checked_day(number(words[2])?, month, number(day)?)?);
        words.drain(..3);
    }
    for word in words {
        let lower = word.to_ascii_lowercase();
        if matches!(lower.as_str(), "z" | "utc" | "gmt") {
            fields.offset = Some(0);
        } else if word.starts_with(['+', '-']) && fields.micros.is_some() {
            fields.offset = Some(parse_offset(word)?);
        } else if word.contains(':') {
            let cut = word.find(['+', '-', 'Z', 'z']).unwrap_or(word.len());
            fields.micros = Some(parse_clock(&word[..cut])?);
            match &word[cut..] {
                "" => {}
                "Z" | "z" => fields.offset = Some(0),
                zone => fields.offset = Some(parse_offset(zone)?),
            }
        } else if fields.day.is_none() {
            fields.day = Some(parse_day(word)?);
        } else {
            return Err(TimeError::Syntax);
        }
    }
    if let (Some(pm), Some(micros)) = (pm, fields.micros) {
        let hour = micros / (3600 * SECOND);
        let change = match (pm, hour) {
            (true, 0..=11) => 12,
            (false, 12) => -12,
            _ => 0,
        };
        fields.micros = Some(micros + change * 3600 * SECOND);
    }
    if bc && let Some(day) = fields.day {
        let date = civil(day);
        fields.day = Some(checked_day(1 - date.year, date.month, date.day)?);
    }
    Ok(fields)
}

/// Reads a date; a time behind it is ignored.
pub fn parse_date(text: &str) -> Result<i32, TimeError> {
    let fields = parse_fields(text)?;
    match (fields.infinite, fields.day) {
        (Some(positive), _) => Ok(if positive { i32::MAX } else { i32::MIN }),
        (None, Some(day)) => Ok(day as i32),
        _ => Err(TimeError::Syntax),
    }
}

/// Reads a time of day; a date before it and a zone behind it are ignored.
pub fn parse_time(text: &str) -> Result<i64, TimeError> {
    let digits = text.trim();
    if matches!(digits.len(), 4 | 6) && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let (hours, minutes) = (&digits[..2], &digits[2..4]);
        let seconds = digits.get(4..).filter(|seconds| !seconds.is_empty()).unwrap_or("00");
        return parse_clock(&alloc::format!("{hours}:{minutes}:{seconds}"));
    }
    parse_fields(text)?.micros.ok_or(TimeError::Syntax)
}

/// Reads a timestamp. With `zone` an offset in the text is applied, otherwise ignored.
pub fn parse_timestamp(text: &str, zone: bool) -> Result<i64, TimeError> {
    let fields = parse_fields(text)?;
    if let Some(positive) = fields.infinite {
        return Ok(if positive { i64::MAX } else { i64::MIN });
    }
    let day = fields.day.ok_or(TimeError::Syntax)?;
    let stamp = day.checked_mul(DAY).ok_or(TimeError::Range)? + fields.micros.unwrap_or(0);
    let offset = if zone { fields.offset.unwrap_or(0) } else { 0 };
    Ok(stamp - offset * SECOND)
}

/// Letters of a unit that are looked at, as PostgreSQL does.
const UNIT_LETTERS: usize = 10;

fn unit_of(word: &str) -> Option<(i64, i64, i64)> {
    // Months, days, microseconds of one unit.
    Some(match word.get(..UNIT_LETTERS).unwrap_or(word) {
        "us" | "usec" | "usecond" | "useconds" | "usecs" | "microsecon" => (0, 0, 1),
        "ms" | "msec" | "msecond" | "mseconds" | "msecs" | "millisecon" => (0, 0, 1000),
        "s" | "sec" | "second" | "seconds" | "secs" => (0, 0, SECOND),
        "m" | "min" | "mins" | "minute" | "minutes" => (0, 0, 60 * SECOND),
        "h" | "hour" | "hours" | "hr" | "hrs" => (0, 0, 3600 * SECOND),
        "d" | "day" | "days" => (0, 1, 0),
        "w" | "week" | "weeks" => (0, 7, 0),
        "mon" | "mons" | "month" | "months" => (1, 0, 0),
        "y" | "year" | "years" | "yr" | "yrs" => (12, 0, 0),
        "dec" | "decade" | "decades" | "decs" => (120, 0, 0),
        "c" | "cent" | "centuries" | "century" => (1200, 0, 0),
        "mil" | "mils" | "millennia" | "millennium" => (12000, 0, 0),
        _ => return None,
    })
}

fn interval_part(span: &mut Interval, text: &str, unit: &str) -> Result<(), TimeError> {
    let (months, days, micros) = unit_of(unit).ok_or(TimeError::Syntax)?;
    let one = Interval { months: months as i32, days: days as i32, micros };
    // Whole numbers are counted exactly, and only what stands behind the point is a fraction.
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if !fraction.contains('e') => (whole, fraction),
        _ => (text, ""),
    };
    let exact = match whole.trim_start_matches('+') {
        "" | "-" => Some(0),
        whole => whole.parse::<i64>().ok(),
    };
    let part = match exact.filter(|_| !whole.is_empty() || !fraction.is_empty()) {
        Some(count) => {
            let times = |each: i64| count.checked_mul(each).ok_or(TimeError::Range);
            let short = |each: i64| i32::try_from(times(each)?).map_err(|_| TimeError::Range);
            let whole_part = Interval { months: short(months)?, days: short(days)?, micros: times(micros)? };
            let rest: f64 = if fraction.is_empty() {
                0.0
            } else {
                [if text.starts_with('-') { "-0." } else { "0." }, fraction]
                    .concat()
                    .parse()
                    .map_err(|_| TimeError::Syntax)?
            };
            let rest = one.scaled(rest).ok_or(TimeError::Range)?;
            whole_part.checked_add(rest).ok_or(TimeError::Range)?
        }
        None => one.scaled(text.parse().map_err(|_| TimeError::Syntax)?).ok_or(TimeError::Range)?,
    };
    *span = span.checked_add(part).ok_or(TimeError::Range)?;
    Ok(())
}

/// What is left of an interval when its smallest field is this one.
pub fn down_to(span: Interval, field: &str) -> Interval {
    let unit = match field {
        "year" => return Interval { months: span.months / 12 * 12, days: 0, micros: 0 },
        "month" => return Interval { days: 0, micros: 0, ..span },
        "day" => return Interval { micros: 0, ..span },
        "hour" => 3600 * SECOND,
        "minute" => 60 * SECOND,
        _ => return span,
    };
    Interval { micros: span.micros / unit * unit, ..span }
}

/// Reads an interval; `unit` is what a bare number counts (`SECOND` if none is given).
pub fn parse_interval(text: &str, unit: Option<&str>) -> Result<Interval, TimeError> {
    let lower = text.trim().to_ascii_lowercase();
    let mut span = Interval::default();
    if let Some(iso) = lower.strip_prefix('p') {
        return parse_iso_interval(iso);
    }
    let mut tokens: Vec<String> = Vec::new();
    for word in lower.trim_start_matches('@').split_whitespace() {
        // `3days` is two tokens.
        let cut = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
        if cut > 0 && cut < word.len() {
            tokens.push(word[..cut].to_string());
            tokens.push(word[cut..].to_string());
        } else {
            tokens.push(word.to_string());
        }
    }
    let ago = tokens.last().is_some_and(|t| t == "ago");
    if ago {
        tokens.pop();
    }
    if tokens.is_empty() {
        return Err(TimeError::Syntax);
    }
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.contains(':') {
            let (negative, clock) = match token.strip_prefix('-') {
                Some(rest) => (true, rest),
                None => (false, token.strip_prefix('+').unwrap_or(token)),
            };
            let mut parts = clock.split(':');
            let hours: i64 = number(parts.next().unwrap_or(""))?;
            let minutes: i64 = number(parts.next().unwrap_or(""))?;
            let seconds = parts.next().map_or(Ok(0), parse_seconds)?;
            let total =
                hours.checked_mul(3600 * SECOND).ok_or(TimeError::Range)? + minutes * 60 * SECOND + seconds;
            let part = Interval { micros: if negative { -total } else { total }, ..Interval::default() };
            span = span.checked_add(part).ok_or(TimeError::Range)?;
            at += 1;
        } else if let Some((years, months)) =
            token[1.min(token.len())..].split_once('-').filter(|_| !token.starts_with('p'))
        {
            let years = [&token[..1], years].concat();
            let sign = if years.starts_with('-') { -1 } else { 1 };
            let years: i32 = number(years.trim_start_matches(['-', '+']))?;
            let months: i32 = number(months)?;
            let part = Interval { months: sign * (years * 12 + months), ..Interval::default() };
            span = span.checked_add(part).ok_or(TimeError::Range)?;
            at += 1;
        } else {
            match tokens.get(at + 1) {
                Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                    interval_part(&mut span, token, word)?;
                    at += 2;
                }
                following => {
                    let bare_day = following.is_some_and(|t| t.contains(':'));
                    interval_part(&mut span, token, if bare_day { "day" } else { unit.unwrap_or("second") })?;
                    at += 1;
                }
            }
        }
    }
    if ago { span.checked_neg().ok_or(TimeError::Range) } else { Ok(span) }
}

fn parse_iso_interval(text: &str) -> Result<Interval, TimeError> {
    let (mut span, mut start, mut clock) = (Interval::default(), 0, false);
    // `P0001-02-03T04:05:06`: fields by their place.
    let (date, time) = text.split_once('t').unwrap_or((text, ""));
    if !text.contains(|c: char| c.is_ascii_alphabetic() && c != 't')
        && let [years, months, days] = date.split('-').collect::<Vec<_>>()[..]
    {
        interval_part(&mut span, years, "year")?;
        interval_part(&mut span, months, "month")?;
        interval_part(&mut span, days, "day")?;
        if !time.is_empty() {
            span.micros = parse_clock(time)?;
        }
        return Ok(span);
    }
    for (at, c) in text.char_indices() {
        if c.is_ascii_digit() || c == '.' || c == '-' || c == '+' {
            continue;
        }
        let unit = match (c, clock) {
            ('t', _) => {
                clock = true;
                start = at + 1;
                continue;
            }
            ('y', _) => "year",
            ('m', false) => "month",
            ('w', _) => "week",
            ('d', _) => "day",
            ('h', _) => "hour",
            ('m', true) => "minute",
            ('s', _) => "second",
            _ => return Err(TimeError::Syntax),
        };
        interval_part(&mut span, &text[start..at], unit)?;
        start = at + 1;
    }
    Ok(span)
}
