//! Pictures of dates and times: `to_char`, `to_date` and `to_timestamp` (`DCH_to_char` and `DCH_from_char` of PostgreSQL's
//! formatting.c).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::datetime::{DAY, SECOND, civil, days};
use kimberlite_row::{SqlError, SqlState, Type, Value};

use super::picture::quoted;
use super::string;
use super::time::{HOUR, iso_week, parts};

type Answer = Result<Value, SqlError>;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The fields, those first that others are the beginning of; with how many digits they have, none for words.
const FIELDS: [(&str, usize); 48] = [
    ("Y,YYY", 5),
    ("YYYY", 4),
    ("YYY", 3),
    ("YY", 2),
    ("Y", 1),
    ("IYYY", 4),
    ("IYY", 3),
    ("IY", 2),
    ("IDDD", 3),
    ("ID", 1),
    ("IW", 2),
    ("I", 1),
    ("HH24", 2),
    ("HH12", 2),
    ("HH", 2),
    ("MONTH", 0),
    ("MON", 0),
    ("MM", 2),
    ("MI", 2),
    ("MS", 3),
    ("SSSSS", 5),
    ("SSSS", 5),
    ("SS", 2),
    ("US", 6),
    ("FF1", 1),
    ("FF2", 2),
    ("FF3", 3),
    ("FF4", 4),
    ("FF5", 5),
    ("FF6", 6),
    ("DAY", 0),
    ("DY", 0),
    ("DDD", 3),
    ("DD", 2),
    ("D", 1),
    ("WW", 2),
    ("W", 1),
    ("CC", 2),
    ("Q", 1),
    ("J", 7),
    ("RM", 0),
    ("TZH", 0),
    ("TZM", 0),
    ("TZ", 0),
    ("OF", 0),
    ("A.M.", 0),
    ("P.M.", 0),
    ("A.D.", 0),
];
/// The same, of words that are shown as they are written.
const WORDS: [&str; 5] = ["AM", "PM", "AD", "BC", "B.C."];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Upper,
    Lower,
    Capital,
}

enum Piece {
    Field { name: &'static str, digits: usize, style: Style, fill: bool, ordinal: Option<bool> },
    Other(char),
}

fn pieces(picture: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut rest = picture;
    let mut fill = true;
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = quoted(rest, |c| out.push(Piece::Other(c)));
            continue;
        }
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            (fill, rest) = (false, after);
            continue;
        }
        let starts = |name: &str| {
            let start = rest.get(..name.len())?;
            let capital = start.starts_with(|c: char| c.is_ascii_uppercase())
                && start[1..].chars().all(|c| c.is_ascii_lowercase());
            if start == name {
                Some(Style::Upper)
            } else if start == name.to_lowercase() {
                Some(Style::Lower)
            } else if capital
                && ["MONTH", "MON", "DAY", "DY"].contains(&name)
                && start.eq_ignore_ascii_case(name)
            {
                Some(Style::Capital)
            } else {
                None
            }
        };
        let names = FIELDS.iter().copied().chain(WORDS.iter().map(|word| (*word, 0)));
        let found =
            names.into_iter().find_map(|(name, digits)| starts(name).map(|style| (name, digits, style)));
        let Some((name, digits, style)) = found else {
            out.push(Piece::Other(first));
            rest = &rest[first.len_utf8()..];
            continue;
        };
        rest = &rest[name.len()..];
        let ordinal = [("TH", true), ("th", false)].into_iter().find(|(end, _)| rest.starts_with(end));
        if ordinal.is_some() {
            rest = &rest[2..];
        }
        out.push(Piece::Field { name, digits, style, fill, ordinal: ordinal.map(|(_, upper)| upper) });
        fill = true;
    }
    out
}

/// `st`, `nd`, `rd` or `th`, by the last digits.
fn ending(number: &str, upper: bool) -> &'static str {
    let teen = number.len() > 1 && number.as_bytes()[number.len() - 2] == b'1';
    let which = match number.as_bytes().last() {
        Some(b'1') if !teen => 0,
        Some(b'2') if !teen => 1,
        Some(b'3') if !teen => 2,
        _ => 3,
    };
    if upper { ["ST", "ND", "RD", "TH"][which] } else { ["st", "nd", "rd", "th"][which] }
}

fn styled(text: &str, style: Style) -> String {
    match style {
        Style::Upper => text.to_uppercase(),
        Style::Lower => text.to_lowercase(),
        Style::Capital => text.to_string(),
    }
}

/// A time as its fields.
struct Shown {
    year: i64,
    month: i64,
    day: i64,
    /// The day since 1970, of what is a date.
    date: Option<i64>,
    micros: i64,
    zoned: bool,
}

impl Shown {
    /// The number of a field.
    fn number(&self, name: &str) -> Option<i64> {
        let date = self.date;
        let shown_year = if self.year <= 0 && date.is_some() { 1 - self.year } else { self.year };
        let of_year = |day: i64| day - days(self.year, 1, 1) + 1;
        let iso = |day: i64| (day + 3).rem_euclid(7) + 1;
        let iso_year = || {
            let year = iso_week(date?).0;
            Some(if year <= 0 { 1 - year } else { year })
        };
        let hour = self.micros / HOUR;
        Some(match name {
            "YYYY" | "Y,YYY" => shown_year,
            "YYY" => shown_year % 1000,
            "YY" => shown_year % 100,
            "Y" => shown_year % 10,
            "IYYY" => iso_year()?,
            "IYY" => iso_year()? % 1000,
            "IY" => iso_year()? % 100,
            "I" => iso_year()? % 10,
            "IDDD" => (iso_week(date?).1 - 1) * 7 + iso(date?),
            "ID" => iso(date?),
            "IW" => iso_week(date?).1,
            "HH24" => hour,
            "HH12" | "HH" => {
                if hour % 12 == 0 {
                    12
                } else {
                    hour % 12
                }
            }
            "MM" => self.month,
            "MI" => self.micros / (60 * SECOND) % 60,
            "SS" => self.micros / SECOND % 60,
            "MS" | "FF3" => self.micros % SECOND / 1000,
            "US" | "FF6" => self.micros % SECOND,
            "FF1" => self.micros % SECOND / 100_000,
            "FF2" => self.micros % SECOND / 10_000,
            "FF4" => self.micros % SECOND / 100,
            "FF5" => self.micros % SECOND / 10,
            "SSSS" | "SSSSS" => self.micros / SECOND,
            "DDD" => of_year(date?),
            "DD" => self.day,
            "D" => (date? + 4).rem_euclid(7) + 1,
            "WW" => (of_year(date?) - 1) / 7 + 1,
            "W" => (self.day - 1) / 7 + 1,
            "CC" if self.year > 0 => (self.year + 99) / 100,
            "CC" => self.year / 100 - 1,
            "Q" if self.month == 0 => return None,
            "Q" => (self.month - 1) / 3 + 1,
            "J" => date? + 2_440_588,
            _ => return None,
        })
    }

    /// A field that is a word.
    fn word(&self, name: &str, style: Style, fill: bool) -> Option<String> {
        let padded = |text: &str, width: usize| {
            let text = styled(text, style);
            if fill { format!("{text:<width$}") } else { text }
        };
        let at = |of: i64| usize::try_from(of).ok();
        let weekday = self.date.map(|date| WEEKDAYS[at((date + 4).rem_euclid(7)).unwrap_or(0)]);
        let month = at(self.month - 1).filter(|at| *at < 12);
        Some(match name {
            "MONTH" => padded(MONTHS[month?], 9),
            "MON" => styled(&MONTHS[month?][..3], style),
            "DAY" => padded(weekday?, 9),
            "DY" => styled(&weekday?[..3], style),
            "RM" => padded(ROMAN[month?], 4),
            "AM" | "PM" => styled(if self.micros / HOUR % 24 < 12 { "AM" } else { "PM" }, style),
            "A.M." | "P.M." => styled(if self.micros / HOUR % 24 < 12 { "A.M." } else { "P.M." }, style),
            "AD" | "BC" => styled(if self.year > 0 { "AD" } else { "BC" }, style),
            "A.D." | "B.C." => styled(if self.year > 0 { "A.D." } else { "B.C." }, style),
            "TZ" => styled(if self.zoned { "UTC" } else { "" }, style),
            "TZH" | "OF" => "+00".to_string(),
            "TZM" => "00".to_string(),
            _ => return None,
        })
    }
}

/// `to_char` of a date, a time or an interval.
pub(super) fn to_char(v: &[Value], _: &Type) -> Answer {
    let shown = match &v[0] {
        Value::Interval(span) => Shown {
            year: i64::from(span.months / 12),
            month: i64::from(span.months % 12),
            day: i64::from(span.days),
            date: None,
            micros: span.micros,
            zoned: false,
        },
        other => {
            let Some((day, micros)) = parts(other) else { return Ok(Value::Null) };
            let date = civil(day);
            Shown {
                year: date.year,
                month: i64::from(date.month),
                day: i64::from(date.day),
                date: Some(day),
                micros,
                zoned: matches!(other, Value::TimestampTz(_)),
            }
        }
    };
    let of_dates = ["DAY", "DY", "D", "ID", "IDDD", "AD", "BC", "A.D.", "B.C.", "IW", "J"];
    let mut out = String::new();
    for piece in pieces(string(&v[1])) {
        let (name, digits, style, fill, ordinal) = match piece {
            Piece::Other(c) => {
                out.push(c);
                continue;
            }
            Piece::Field { name, digits, style, fill, ordinal } => (name, digits, style, fill, ordinal),
        };
        if shown.date.is_none() && of_dates.contains(&name) {
            let message = "invalid format specification for an interval value";
            return Err(SqlError::new(SqlState::InvalidDatetimeFormat, message)
                .hint("Intervals are not tied to specific calendar dates."));
        }
        let plain = !fill || ["Q", "W", "D", "ID", "I", "Y", "J", "SSSS", "SSSSS"].contains(&name);
        let text = match shown.number(name) {
            Some(number) if name == "Y,YYY" => format!("{},{:03}", number / 1000, number % 1000),
            // Parts of a second have all their digits.
            Some(number) if name == "MS" || name == "US" || name.starts_with("FF") => {
                format!("{number:0digits$}")
            }
            Some(number) if plain => number.to_string(),
            Some(number) => {
                let width = digits + usize::from(number < 0);
                format!("{number:0width$}")
            }
            None => shown.word(name, style, fill).unwrap_or_default(),
        };
        out.push_str(&text);
        if let Some(upper) = ordinal.filter(|_| digits > 0) {
            out.push_str(ending(&text, upper));
        }
    }
    Ok(Value::from(out))
}

/// What a picture found in a text.
#[derive(Default)]
struct Found {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    of_year: Option<i64>,
    week: Option<i64>,
    iso: (Option<i64>, Option<i64>, Option<i64>),
    julian: Option<i64>,
    century: Option<i64>,
    hour: i64,
    minute: i64,
    second: i64,
    micros: i64,
    of_day: Option<i64>,
    twelve: bool,
    afternoon: Option<bool>,
    before: bool,
    zone: i64,
}

struct Reading<'a> {
    text: &'a [char],
    at: usize,
}

impl Reading<'_> {
    fn rest(&self) -> String {
        self.text[self.at.min(self.text.len())..].iter().collect()
    }

    fn spaces(&mut self) {
        while self.text.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
    }

    /// A number: of so many digits, or of as many as there are.
    fn number(&mut self, name: &str, digits: usize, all: bool) -> Result<(i64, usize), SqlError> {
        self.spaces();
        let bad = |reading: &Self, detail: &str| {
            let start: String = reading.rest().chars().take(digits.max(1)).collect();
            let message = format!("invalid value \"{start}\" for \"{name}\"");
            SqlError::new(SqlState::InvalidDatetimeFormat, message).detail(detail.to_string())
        };
        let left = self.text.len().saturating_sub(self.at);
        if !all && left < digits {
            let message = format!("source string too short for \"{name}\" formatting field");
            return Err(SqlError::new(SqlState::InvalidDatetimeFormat, message)
                .detail(format!("Field requires {digits} characters, but only {left} remain.")));
        }
        let most = if all { left } else { digits };
        let window = &self.text[self.at.min(self.text.len())..self.at.min(self.text.len()) + most];
        let sign = usize::from(matches!(window.first(), Some('-' | '+')));
        let count = window[sign.min(window.len())..].iter().take_while(|c| c.is_ascii_digit()).count();
        if count == 0 {
            return Err(bad(self, "Value must be an integer."));
        }
        if !all && sign + count < digits {
            let detail =
                format!("Field requires {digits} characters, but only {} could be parsed.", sign + count);
            return Err(bad(self, &detail));
        }
        let number: String = window[..sign + count].iter().filter(|c| **c != '+').collect();
        let value = number.parse::<i32>().map_err(|_| {
            let message = format!("value for \"{name}\" in source string is out of range");
            SqlError::new(SqlState::DatetimeFieldOverflow, message)
        })?;
        self.at += sign + count;
        Ok((i64::from(value), sign + count))
    }

    /// Which of some words stands next, in whichever letters.
    fn word(&mut self, name: &str, words: &[&str]) -> Result<usize, SqlError> {
        self.spaces();
        let rest = self.rest().to_lowercase();
        let found = words.iter().position(|word| rest.starts_with(&word.to_lowercase()));
        let Some(at) = found else {
            let start: String = self.rest().chars().take_while(|c| !c.is_whitespace()).collect();
            let message = format!("invalid value \"{start}\" for \"{name}\"");
            return Err(SqlError::new(SqlState::InvalidDatetimeFormat, message)
                .detail("The given value did not match any of the allowed values for this field."));
        };
        self.at += words[at].chars().count();
        Ok(at)
    }
}

/// A year of two or three digits is near 2020.
fn near_now(year: i64, digits: usize) -> i64 {
    match year {
        _ if digits >= 4 => year,
        0..70 | 100..520 => year + 2000,
        70..100 => year + 1900,
        520..1000 => year + 1000,
        _ => year,
    }
}

impl Found {
    #[allow(clippy::too_many_lines, reason = "one arm per field")]
    fn read(&mut self, reading: &mut Reading<'_>, piece: &Piece, all: bool) -> Result<(), SqlError> {
        let Piece::Field { name, digits, ordinal, .. } = piece else { return Ok(()) };
        let number = |reading: &mut Reading<'_>| reading.number(name, *digits, all);
        match *name {
            "YYYY" => self.year = Some(number(reading)?.0),
            "Y,YYY" => {
                let (thousands, _) = reading.number(name, 1, true)?;
                if reading.text.get(reading.at) == Some(&',') {
                    reading.at += 1;
                }
                self.year = Some(thousands * 1000 + reading.number(name, 3, false)?.0);
            }
            "YYY" | "YY" | "Y" => {
                let (year, digits) = number(reading)?;
                self.year = Some(near_now(year, digits));
            }
            "IYYY" => self.iso.0 = Some(number(reading)?.0),
            "IYY" | "IY" | "I" => {
                let (year, digits) = number(reading)?;
                self.iso.0 = Some(near_now(year, digits));
            }
            "IW" => self.iso.1 = Some(number(reading)?.0),
            "ID" => self.iso.2 = Some(number(reading)?.0),
            "MM" => self.month = Some(number(reading)?.0),
            "MONTH" => self.month = Some(reading.word(name, &MONTHS)? as i64 + 1),
            "MON" => {
                let short: Vec<&str> = MONTHS.iter().map(|month| &month[..3]).collect();
                self.month = Some(reading.word(name, &short)? as i64 + 1);
            }
            "RM" => {
                // The longest that fits: `VIII` begins with `VI`.
                let mut roman: Vec<(usize, &str)> = ROMAN.into_iter().enumerate().collect();
                roman.sort_by_key(|(_, word)| core::cmp::Reverse(word.len()));
                let words: Vec<&str> = roman.iter().map(|(_, word)| *word).collect();
                self.month = Some(roman[reading.word(name, &words)?].0 as i64 + 1);
            }
            "DD" => self.day = Some(number(reading)?.0),
            "DDD" => self.of_year = Some(number(reading)?.0),
            "D" | "Q" | "W" | "IDDD" => {
                number(reading)?;
            }
            "WW" => self.week = Some(number(reading)?.0),
            "CC" => self.century = Some(number(reading)?.0),
            "J" => self.julian = Some(reading.number(name, 7, true)?.0),
            "DAY" => {
                reading.word(name, &WEEKDAYS)?;
            }
            "DY" => {
                let short: Vec<&str> = WEEKDAYS.iter().map(|day| &day[..3]).collect();
                reading.word(name, &short)?;
            }
            "HH24" => self.hour = number(reading)?.0,
            "HH12" | "HH" => (self.hour, self.twelve) = (number(reading)?.0, true),
            "MI" => self.minute = number(reading)?.0,
            "SS" => self.second = number(reading)?.0,
            "SSSS" | "SSSSS" => self.of_day = Some(number(reading)?.0),
            "MS" | "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                reading.spaces();
                let there = reading.text[reading.at..].iter().take_while(|c| c.is_ascii_digit()).count();
                let (part, used) = reading.number(name, there.clamp(1, *digits), false)?;
                self.micros = part * 10_i64.pow(6 - used.min(6) as u32);
            }
            "AM" | "PM" => {
                (self.afternoon, self.twelve) = (Some(reading.word(name, &["AM", "PM"])? == 1), true);
            }
            "A.M." | "P.M." => {
                (self.afternoon, self.twelve) = (Some(reading.word(name, &["A.M.", "P.M."])? == 1), true);
            }
            "AD" | "BC" => self.before = reading.word(name, &["AD", "BC"])? == 1,
            "A.D." | "B.C." => self.before = reading.word(name, &["A.D.", "B.C."])? == 1,
            "TZH" => {
                reading.spaces();
                let negative = reading.text.get(reading.at) == Some(&'-');
                let hours = reading.number(name, 2 + usize::from(negative), all)?.0;
                self.zone += hours * HOUR;
            }
            "TZM" => {
                let minutes = reading.number(name, 2, all)?.0 * 60 * SECOND;
                self.zone += if self.zone < 0 { -minutes } else { minutes };
            }
            other => {
                let message = format!("formatting field \"{other}\" is only supported in to_char");
                return Err(SqlError::new(SqlState::FeatureNotSupported, message));
            }
        }
        // The two letters of an ordinal number, whichever they are.
        reading.at = (reading.at + if ordinal.is_some() { 2 } else { 0 }).min(reading.text.len());
        Ok(())
    }

    /// Day and time of day; what is not named is the first.
    fn moment(mut self, text: &str) -> Result<(i64, i64), SqlError> {
        let range = || {
            let message = format!("date/time field value out of range: \"{text}\"");
            SqlError::new(SqlState::DatetimeFieldOverflow, message)
        };
        if let Some(of_day) = self.of_day {
            (self.hour, self.minute, self.second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        }
        if self.twelve {
            if !(1..=12).contains(&self.hour) {
                let message = format!("hour \"{}\" is invalid for the 12-hour clock", self.hour);
                return Err(SqlError::new(SqlState::InvalidDatetimeFormat, message)
                    .hint("Use the 24-hour clock, or give an hour between 1 and 12."));
            }
            self.hour = self.hour % 12 + if self.afternoon == Some(true) { 12 } else { 0 };
        }
        let clock =
            (0..24).contains(&self.hour) && (0..60).contains(&self.minute) && (0..60).contains(&self.second);
        if !clock {
            return Err(range());
        }
        let micros = self.hour * HOUR + self.minute * 60 * SECOND + self.second * SECOND + self.micros;
        if let Some(julian) = self.julian {
            return Ok((julian - 2_440_588, micros));
        }
        if let (Some(year), Some(week), weekday) = self.iso {
            let fourth = days(year, 1, 4);
            let monday = fourth - (fourth + 3).rem_euclid(7);
            return Ok((monday + (week - 1) * 7 + weekday.unwrap_or(1) - 1, micros));
        }
        let mut year = self.year.or(self.iso.0);
        if let (Some(century), None) = (self.century, year) {
            year = Some((century - 1) * 100 + 1);
        }
        let year = match year {
            Some(year) if self.before => 1 - year,
            other => other.unwrap_or(0),
        };
        let of_year = self.of_year.or(self.week.map(|week| (week - 1) * 7 + 1));
        if let (Some(of_year), None) = (of_year, self.month) {
            if self.year.is_none() {
                let message = "cannot calculate day of year without year information";
                return Err(SqlError::new(SqlState::InvalidDatetimeFormat, message));
            }
            let first = days(year, 1, 1);
            if of_year < 1 || first + of_year > days(year + 1, 1, 1) {
                return Err(range());
            }
            return Ok((first + of_year - 1, micros));
        }
        let (month, day) = (self.month.unwrap_or(1), self.day.unwrap_or(1));
        let (Ok(m), Ok(d)) = (u8::try_from(month), u8::try_from(day)) else { return Err(range()) };
        if !(1..=12).contains(&m) || d == 0 {
            return Err(range());
        }
        let number = days(year, m.into(), d.into());
        // A day that the month does not have is one of the next.
        if i64::from(civil(number).month) != month {
            return Err(range());
        }
        Ok((number, micros))
    }
}

fn read(text: &str, picture: &str) -> Result<(i64, i64, i64), SqlError> {
    let chars: Vec<char> = text.chars().collect();
    let mut reading = Reading { text: &chars, at: 0 };
    let mut found = Found::default();
    let pieces = pieces(picture);
    for (at, piece) in pieces.iter().enumerate() {
        if reading.at >= chars.len() {
            break;
        }
        match piece {
            Piece::Other(c) if c.is_alphanumeric() => reading.at += 1,
            // A separator stands for any one, or for none.
            Piece::Other(_) => {
                let here = chars[reading.at];
                let sign = matches!(here, '-' | '+') && signed(&pieces, at);
                reading.at += usize::from(!here.is_alphanumeric() && !sign);
            }
            Piece::Field { fill, ordinal, .. } => {
                let next = match pieces.get(at + 1) {
                    None => true,
                    Some(Piece::Field { digits, .. }) => *digits == 0,
                    Some(Piece::Other(c)) => !c.is_ascii_digit(),
                };
                found.read(&mut reading, piece, !fill || ordinal.is_some() || next)?;
            }
        }
    }
    let zone = found.zone;
    let (day, micros) = found.moment(text)?;
    Ok((day, micros, zone))
}

/// Whether a zone follows, which a sign belongs to.
fn signed(pieces: &[Piece], at: usize) -> bool {
    matches!(pieces.get(at + 1), Some(Piece::Field { name: "TZH", .. }))
}

fn range(text: &str) -> SqlError {
    SqlError::new(SqlState::DatetimeFieldOverflow, format!("timestamp out of range: \"{text}\""))
}

/// `to_date`.
pub(super) fn to_date(v: &[Value], _: &Type) -> Answer {
    let (day, ..) = read(string(&v[0]), string(&v[1]))?;
    i32::try_from(day).map(Value::Date).map_err(|_| range(string(&v[0])))
}

/// `to_timestamp` of a text.
pub(super) fn to_timestamp(v: &[Value], _: &Type) -> Answer {
    let (day, micros, zone) = read(string(&v[0]), string(&v[1]))?;
    let moment = day.checked_mul(DAY).and_then(|day| day.checked_add(micros - zone));
    moment.map(Value::TimestampTz).ok_or_else(|| range(string(&v[0])))
}
