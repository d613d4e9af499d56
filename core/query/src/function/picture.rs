//! `to_char` of numbers, and `to_number`: PostgreSQL's pictures (`NUM_processor` in its formatting.c), step by step, since
//! what is written where follows from the order of its steps.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use kimberlite_row::{Decimal, SqlError, SqlState, Type, Value, text};

use super::{bad, decimal};

type Answer = Result<Value, SqlError>;

/// Places of a picture: the digits of a number with its fraction, and no more.
const PICTURE_DIGITS_MAX: usize = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sign {
    /// `S`: in front of the number or behind it.
    Anchored,
    /// `MI`: a minus or a blank.
    Minus,
    /// `PL`: a plus or a blank.
    Plus,
    /// `SG`: either.
    Either,
    /// `PR`: in angle brackets.
    Brackets,
}

#[derive(Clone, PartialEq, Debug)]
enum Node {
    Nine,
    Zero,
    Point,
    Comma,
    Currency,
    Sign(Sign),
    Fill,
    Ordinal { upper: bool },
    Roman { upper: bool },
    Scientific,
    Shift,
    Blank,
    Other(char),
}

/// Gives the characters of a text in quotation marks that a picture begins with, and answers what stands behind it. It is written
/// as it is; a backslash takes the next character along.
pub(super) fn quoted(picture: &str, mut each: impl FnMut(char)) -> &str {
    let mut inside = picture[1..].char_indices();
    while let Some((at, c)) = inside.next() {
        match c {
            '"' => return &picture[at + 2..],
            '\\' => {
                if let Some((_, c)) = inside.next() {
                    each(c);
                }
            }
            c => each(c),
        }
    }
    ""
}

fn nodes(picture: &str) -> Vec<Node> {
    let mut out = Vec::new();
    let mut rest = picture;
    let known: [(&str, Node); 17] = [
        ("EEEE", Node::Scientific),
        ("FM", Node::Fill),
        ("MI", Node::Sign(Sign::Minus)),
        ("PL", Node::Sign(Sign::Plus)),
        ("PR", Node::Sign(Sign::Brackets)),
        ("RN", Node::Roman { upper: true }),
        ("SG", Node::Sign(Sign::Either)),
        ("TH", Node::Ordinal { upper: true }),
        ("9", Node::Nine),
        ("0", Node::Zero),
        (".", Node::Point),
        ("D", Node::Point),
        (",", Node::Comma),
        ("G", Node::Comma),
        ("L", Node::Currency),
        ("S", Node::Sign(Sign::Anchored)),
        ("V", Node::Shift),
    ];
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            rest = quoted(rest, |c| out.push(Node::Other(c)));
            continue;
        }
        if first == '\\' {
            let next = rest[1..].chars().next();
            out.push(Node::Other(next.filter(|c| matches!(c, '"' | '\\')).unwrap_or('\\')));
            rest = &rest[1 + usize::from(matches!(next, Some('"' | '\\')))..];
            continue;
        }
        let node = known.iter().find(|(name, _)| {
            rest.as_bytes().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name.as_bytes()))
        });
        match node {
            Some((name, node)) => {
                let lower = rest.starts_with(|c: char| c.is_ascii_lowercase());
                out.push(match node {
                    Node::Ordinal { .. } => Node::Ordinal { upper: !lower },
                    Node::Roman { .. } => Node::Roman { upper: !lower },
                    node => node.clone(),
                });
                rest = &rest[name.len()..];
            }
            None if matches!(first, 'B' | 'b') => {
                out.push(Node::Blank);
                rest = &rest[1..];
            }
            None => {
                out.push(Node::Other(first));
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    out
}

/// What a picture says before a number is looked at.
#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "flags of PostgreSQL's pictures")]
struct Picture {
    /// Places in front of the point, and behind it.
    before: usize,
    behind: usize,
    /// Places behind `V`.
    shifted: usize,
    /// Which place the first zero is, from 0; and places up to the last.
    zero_start: Option<usize>,
    zero_end: usize,
    point: bool,
    shift: bool,
    fill: bool,
    brackets: bool,
    minus: bool,
    plus: bool,
    roman: Option<bool>,
    scientific: bool,
    /// Where `S` stands: in front of the number, or behind it; and places that stand in front of it.
    anchored: Option<bool>,
    anchored_at: usize,
}

fn refused(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::SyntaxError, message)
}

impl Picture {
    fn of(nodes: &[Node]) -> Result<Self, SqlError> {
        let mut this = Self::default();
        for node in nodes {
            if this.scientific && !matches!(node, Node::Other(_)) {
                return Err(refused("\"EEEE\" must be the last pattern used"));
            }
            match node {
                Node::Nine | Node::Zero if this.brackets => {
                    let digit = if *node == Node::Nine { '9' } else { '0' };
                    return Err(refused(format!("\"{digit}\" must be ahead of \"PR\"")));
                }
                Node::Nine if this.shift => this.shifted += 1,
                Node::Nine if this.point => this.behind += 1,
                Node::Nine => this.before += 1,
                Node::Zero => {
                    if this.zero_start.is_none() && !this.point {
                        this.zero_start = Some(this.before);
                    }
                    if this.point {
                        this.behind += 1;
                    } else {
                        this.before += 1;
                    }
                    this.zero_end = this.before + this.behind;
                }
                Node::Point if this.point => return Err(refused("multiple decimal points")),
                Node::Point if this.shift => {
                    return Err(refused("cannot use \"V\" and decimal point together"));
                }
                Node::Point => this.point = true,
                Node::Sign(Sign::Anchored) => {
                    if this.anchored.is_some() && !this.point {
                        return Err(refused("cannot use \"S\" twice"));
                    }
                    if this.plus || this.minus || this.brackets {
                        return Err(refused("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together"));
                    }
                    if this.anchored.is_none() {
                        this.anchored = Some(!this.point);
                        this.anchored_at = this.before;
                    }
                }
                Node::Sign(sign) => {
                    if this.anchored.is_some() {
                        return Err(refused("cannot use \"S\" and \"PL\"/\"MI\"/\"SG\"/\"PR\" together"));
                    }
                    match sign {
                        Sign::Brackets if this.plus || this.minus => {
                            return Err(refused("cannot use \"PR\" and \"S\"/\"PL\"/\"MI\"/\"SG\" together"));
                        }
                        Sign::Brackets => this.brackets = true,
                        Sign::Minus => this.minus = true,
                        Sign::Plus => this.plus = true,
                        _ => (this.minus, this.plus) = (true, true),
                    }
                }
                Node::Fill => this.fill = true,
                Node::Roman { upper } => this.roman = Some(*upper),
                Node::Shift if this.point => {
                    return Err(refused("cannot use \"V\" and decimal point together"));
                }
                Node::Shift => this.shift = true,
                Node::Scientific => {
                    if this.fill
                        || this.shift
                        || this.plus
                        || this.minus
                        || this.brackets
                        || this.roman.is_some()
                        || this.anchored.is_some()
                    {
                        return Err(refused("\"EEEE\" is incompatible with other formats").detail(
                            "\"EEEE\" may only be used together with digit and decimal point patterns.",
                        ));
                    }
                    this.scientific = true;
                }
                Node::Comma | Node::Currency | Node::Ordinal { .. } | Node::Blank | Node::Other(_) => {}
            }
        }
        if this.before + this.behind + this.shifted > PICTURE_DIGITS_MAX {
            return Err(bad(format!("a picture has at most {PICTURE_DIGITS_MAX} digits")));
        }
        Ok(this)
    }
}

fn roman(number: Option<i64>, upper: bool) -> String {
    let Some(mut number) = number.filter(|n| (1..4000).contains(n)) else { return "#".repeat(15) };
    let signs = [
        (1000, "M"),
        (900, "CM"),
        (500, "D"),
        (400, "CD"),
        (100, "C"),
        (90, "XC"),
        (50, "L"),
        (40, "XL"),
        (10, "X"),
        (9, "IX"),
        (5, "V"),
        (4, "IV"),
        (1, "I"),
    ];
    let mut out = String::new();
    for (value, sign) in signs {
        while number >= value {
            out.push_str(sign);
            number -= value;
        }
    }
    if upper { out } else { out.to_lowercase() }
}

fn scientific(number: Decimal, places: usize) -> Result<String, SqlError> {
    let sign = if number.is_negative() { '-' } else { ' ' };
    if number.is_zero() {
        let zeros = if places > 0 { format!("0.{}", "0".repeat(places)) } else { "0".to_string() };
        return Ok(format!("{sign}{zeros}e+00"));
    }
    // The digits of the coefficient, rounded to those that are shown.
    let mut digits = number.coefficient().unsigned_abs().to_string();
    let mut exponent = digits.len() as i64 - 1 - i64::from(number.scale());
    if digits.len() > places + 1 {
        let cut = u32::try_from(digits.len() - places - 1).unwrap_or(0);
        let unit = 10_u128.checked_pow(cut).ok_or_else(|| bad("the number is too long"))?;
        let whole = number.coefficient().unsigned_abs();
        let rounded = whole / unit + u128::from(whole % unit >= unit - whole % unit);
        let longer = rounded.to_string();
        if longer.len() > places + 1 {
            exponent += 1;
        }
        digits = longer[..=places].to_string();
    }
    while digits.len() < places + 1 {
        digits.push('0');
    }
    let point = if places > 0 { "." } else { "" };
    let mark = if exponent < 0 { '-' } else { '+' };
    Ok(format!("{sign}{}{point}{}e{mark}{:02}", &digits[..1], &digits[1..], exponent.abs()))
}

/// The number as it is written, while it is.
struct Writer<'a> {
    picture: &'a Picture,
    /// Digits with a point.
    number: &'a [u8],
    at: usize,
    negative: bool,
    sign_written: bool,
    /// Places that are blank in front of the number.
    blanks: usize,
    /// The last digit that counts, where trailing zeros are left out.
    last: Option<usize>,
    /// Places, and which one is written.
    count: usize,
    place: usize,
    begun: bool,
    /// Where `S` stands, now that the number is known.
    front: Option<bool>,
    out: String,
}

impl Writer<'_> {
    /// Whether it is the `0` in front of a point where the picture has no zero.
    fn is_bare_zero(&self) -> bool {
        self.picture.zero_start.is_none()
            && self.at == 0
            && self.number.first() == Some(&b'0')
            && self.picture.behind != 0
    }

    fn last_is_point(&self) -> bool {
        self.last.is_some_and(|last| self.number.get(last) == Some(&b'.'))
    }

    fn part(&mut self, zero: bool) {
        let picture = self.picture;
        let starts = picture.zero_start;
        if !self.sign_written
            && (self.place >= self.blanks || starts == Some(self.place))
            && (!self.is_bare_zero() || self.last_is_point())
        {
            match self.front {
                Some(true) => {
                    self.out.push(if self.negative { '-' } else { '+' });
                    self.sign_written = true;
                }
                Some(false) => {}
                None => {
                    if picture.brackets {
                        self.out.push(if self.negative { '<' } else { ' ' });
                    } else if self.negative {
                        self.out.push('-');
                    } else if !picture.fill {
                        self.out.push(' ');
                    }
                    self.sign_written = true;
                }
            }
        }
        if self.place < self.blanks && starts.is_none_or(|starts| starts > self.place) {
            if !picture.fill {
                self.out.push(' ');
            }
        } else if self.place < self.blanks {
            self.out.push('0');
            self.begun = true;
        } else {
            match self.number.get(self.at) {
                Some(b'.') if !self.last_is_point() || picture.fill => self.out.push('.'),
                Some(b'.') | None => {}
                Some(digit) => {
                    if self.last.is_some_and(|last| self.at > last) && !zero {
                        // A zero that does not count.
                    } else if self.is_bare_zero() {
                        if !picture.fill {
                            self.out.push(' ');
                        } else if self.last_is_point() {
                            self.out.push('0');
                        }
                    } else {
                        self.out.push(char::from(*digit));
                        self.begun = true;
                    }
                }
            }
            if self.at < self.number.len() {
                self.at += 1;
            }
        }
        let mut end = self.count + usize::from(self.blanks > 0) + usize::from(picture.point);
        if self.last.is_some_and(|last| last == self.at) {
            end = self.place;
        }
        if self.place + 1 == end {
            if self.sign_written && picture.brackets {
                self.out.push(if self.negative { '>' } else { ' ' });
            } else if self.front == Some(false) {
                self.out.push(if self.negative { '-' } else { '+' });
            }
        }
        self.place += 1;
    }
}

fn ordinal(number: &[u8], upper: bool) -> &'static str {
    let last = number.last().copied().unwrap_or(b'0');
    let teen = number.len() > 1 && number[number.len() - 2] == b'1';
    let lower = match last {
        b'1' if !teen => "st",
        b'2' if !teen => "nd",
        b'3' if !teen => "rd",
        _ => "th",
    };
    match (lower, upper) {
        ("st", true) => "ST",
        ("nd", true) => "ND",
        ("rd", true) => "RD",
        (_, true) => "TH",
        (lower, false) => lower,
    }
}

/// `to_char(number, picture)`.
pub(super) fn to_char(value: &Value, shown: &str) -> Answer {
    let number = decimal(value);
    let nodes = nodes(shown);
    let mut picture = Picture::of(&nodes)?;
    if picture.scientific {
        return scientific(number, picture.behind).map(Value::from);
    }
    if let Some(upper) = picture.roman {
        let whole = number.rounded(0).ok().and_then(Decimal::to_i64);
        let digits = roman(whole, upper);
        let text = if picture.fill { digits } else { format!("{digits:>15}") };
        return Ok(Value::from(text));
    }
    let too_wide = |_| bad("the number is too long for its picture");
    let mut scaled = number;
    if picture.shift {
        for _ in 0..picture.shifted {
            scaled = scaled.mul(Decimal::from(10)).map_err(too_wide)?;
        }
        picture.before += picture.shifted;
    }
    let rounded = scaled.rounded(picture.behind as i64).unwrap_or(scaled);
    let mut digits = rounded.abs().to_string();
    // A number is shown with as many places as the picture has.
    let places = digits.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if places < picture.behind {
        if places == 0 {
            digits.push('.');
        }
        digits.push_str(&"0".repeat(picture.behind - places));
    }
    let whole = digits.find('.').unwrap_or(digits.len());
    let blanks = picture.before.saturating_sub(whole);
    if whole > picture.before {
        digits = format!("{}.{}", "#".repeat(picture.before), "#".repeat(picture.behind));
    }
    let negative = rounded.is_negative();
    if !negative && picture.brackets && picture.fill {
        picture.brackets = false;
    }
    let mut front = picture.anchored;
    let sign_written = if picture.plus || picture.minus {
        !picture.plus || picture.minus
    } else {
        if front == Some(true) && picture.before == picture.anchored_at {
            front = Some(false);
        }
        !negative && picture.fill && picture.anchored.is_none()
    };
    let number = digits.as_bytes();
    let mut last = None;
    if picture.fill
        && picture.point
        && let Some(point) = digits.find('.')
    {
        let trailing = digits[point + 1..].rfind(|c| c != '0').map_or(point, |at| point + 1 + at);
        let mut kept = trailing;
        if picture.zero_end > blanks {
            kept = kept.max((number.len() - 1).min(picture.zero_end - blanks));
        }
        last = Some(kept);
    }
    let count =
        (picture.before + picture.behind).saturating_sub(1) + usize::from(!sign_written && blanks == 0);
    let mut writer = Writer {
        picture: &picture,
        number,
        at: 0,
        negative,
        sign_written,
        blanks,
        last,
        count,
        place: 0,
        begun: false,
        front,
        out: String::new(),
    };
    for node in &nodes {
        match node {
            Node::Nine | Node::Point => writer.part(false),
            Node::Zero => writer.part(true),
            Node::Comma if writer.begun => writer.out.push(','),
            Node::Comma | Node::Sign(Sign::Minus | Sign::Plus) if picture.fill && !shows(node, negative) => {}
            Node::Comma | Node::Currency => writer.out.push(' '),
            Node::Ordinal { upper } if number.first() != Some(&b'#') && !negative && !picture.point => {
                writer.out.push_str(ordinal(number, *upper));
            }
            Node::Sign(Sign::Minus) => writer.out.push(if negative { '-' } else { ' ' }),
            Node::Sign(Sign::Plus) => writer.out.push(if negative { ' ' } else { '+' }),
            Node::Sign(Sign::Either) => writer.out.push(if negative { '-' } else { '+' }),
            Node::Other(c) => writer.out.push(*c),
            _ => {}
        }
    }
    Ok(Value::from(writer.out))
}

/// Whether a sign of its own has something to say.
fn shows(node: &Node, negative: bool) -> bool {
    match node {
        Node::Sign(Sign::Minus) => negative,
        Node::Sign(Sign::Plus) => !negative,
        _ => false,
    }
}

/// `to_number(text, picture)`: the digits of a text where the picture has places, with its sign.
pub(super) fn to_number(source: &str, shown: &str) -> Answer {
    let nodes = nodes(shown);
    let picture = Picture::of(&nodes)?;
    if picture.roman.is_some() || picture.scientific {
        return Err(SqlError::new(
            SqlState::FeatureNotSupported,
            "\"EEEE\" and \"RN\" are not supported for input",
        ));
    }
    let (mut digits, mut negative, mut pointed) = (String::new(), false, false);
    let mut behind = 0;
    for c in source.trim().chars() {
        match c {
            '-' | '<' => negative = true,
            '.' if picture.point && !pointed => {
                pointed = true;
                digits.push('.');
            }
            '.' if !picture.point => break,
            c if c.is_ascii_digit() => {
                let whole = digits.len() - usize::from(pointed) - behind;
                if pointed && behind < picture.behind {
                    behind += 1;
                    digits.push(c);
                } else if !pointed && whole < picture.before + picture.shifted {
                    digits.push(c);
                }
            }
            _ => {}
        }
    }
    if !digits.contains(|c: char| c.is_ascii_digit()) {
        return Err(SqlError::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type numeric: \"{source}\""),
        ));
    }
    let sign = if negative { "-" } else { "" };
    let Value::Decimal(mut number) = text::parse(&format!("{sign}{digits}"), &Type::Decimal(None))? else {
        return Ok(Value::Null);
    };
    for _ in 0..picture.shifted {
        number = number.div(Decimal::from(10)).map_err(|_| bad("the number is too long for its picture"))?;
    }
    Ok(Value::Decimal(number))
}
