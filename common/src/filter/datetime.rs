//! Dates and times in payloads and filters: microseconds since 1970 in UTC.

use std::cmp::Ordering;

/// A point in time with the text it was given as. Compared by the time alone.
#[derive(Clone, Debug)]
pub struct DateTime {
    text: String,
    micros: i64,
}

impl DateTime {
    /// Reads RFC 3339 and its usual relaxations: a space instead of `T`; a zone written `Z`, `UTC`, `+09`, `+0900` or
    /// `+09:00`, after a space if wanted; no zone, which means UTC; `YYYY-MM-DD HH:MM` without seconds and zone; a date
    /// alone. Years 0000 to 9999. Digits beyond microseconds are cut off.
    pub fn parse(text: &str) -> Option<DateTime> {
        Some(DateTime { text: text.to_owned(), micros: parse_micros(text)? })
    }

    /// Microseconds since 1970 in UTC: what is compared.
    pub fn micros(&self) -> i64 {
        self.micros
    }

    /// Seconds since 1970 in UTC. Exact to the microsecond within about 285 years of then.
    pub fn seconds(&self) -> f64 {
        self.micros as f64 / 1e6
    }

    /// The text it was read from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for DateTime {
    fn eq(&self, other: &DateTime) -> bool {
        self.micros == other.micros
    }
}

impl PartialOrd for DateTime {
    fn partial_cmp(&self, other: &DateTime) -> Option<Ordering> {
        Some(self.micros.cmp(&other.micros))
    }
}

/// What is left to read.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// Takes exactly so many digits.
    fn number(&mut self, digits: usize) -> Option<i64> {
        let (taken, left) = self.0.split_at_checked(digits)?;
        let mut value = 0;
        for digit in taken {
            value = value * 10 + i64::from(digit.is_ascii_digit().then(|| digit - b'0')?);
        }
        self.0 = left;
        Some(value)
    }

    /// Takes one of these signs and says which.
    fn sign(&mut self, signs: &[u8]) -> Option<u8> {
        let (first, left) = self.0.split_first()?;
        signs.contains(first).then(|| self.0 = left)?;
        Some(*first)
    }

    /// Takes `.` and digits: microseconds.
    fn fraction(&mut self) -> Option<i64> {
        if self.sign(b".").is_none() {
            return Some(0);
        }
        let digits = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (taken, left) = self.0.split_at(digits);
        self.0 = left;
        let digit = |place: usize| taken.get(place).map_or(0, |b| i64::from(b - b'0'));
        (digits > 0).then(|| (0..6).fold(0, |micros, place| micros * 10 + digit(place)))
    }

    /// Takes a zone: its offset from UTC in seconds.
    fn zone(&mut self) -> Option<i64> {
        if let Some(left) = self.0.strip_prefix(b"UTC") {
            self.0 = left;
            return Some(0);
        }
        let direction = match self.sign(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2)?;
        let minutes = match self.sign(b":") {
            None if self.0.is_empty() => 0,
            _ => self.number(2)?,
        };
        (hours < 24 && minutes < 60).then_some(direction * (hours * 3600 + minutes * 60))
    }
}

fn parse_micros(text: &str) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let year = cursor.number(4)?;
    cursor.sign(b"-")?;
    let month = cursor.number(2)?;
    cursor.sign(b"-")?;
    let day = cursor.number(2)?;
    if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
        return None;
    }
    let midnight = days_from_epoch(year, month, day) * 86_400;
    if cursor.0.is_empty() {
        return Some(midnight * 1_000_000);
    }
    let separator = cursor.sign(b"Tt ")?;
    let hour = cursor.number(2)?;
    cursor.sign(b":")?;
    let minute = cursor.number(2)?;
    // Only after a space may the seconds be left out, and then the zone too.
    if cursor.0.is_empty() && separator == b' ' && hour < 24 && minute < 60 {
        return Some((midnight + hour * 3600 + minute * 60) * 1_000_000);
    }
    cursor.sign(b":")?;
    let second = cursor.number(2)?;
    // 60 is a leap second: it counts as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let micros = cursor.fraction()?;
    if !cursor.0.is_empty() {
        cursor.sign(b" ");
        let offset = cursor.zone()?;
        return cursor.0.is_empty().then_some(instant(midnight, [hour, minute, second], offset) + micros);
    }
    Some(instant(midnight, [hour, minute, second], 0) + micros)
}

fn instant(midnight: i64, [hour, minute, second]: [i64; 3], offset: i64) -> i64 {
    (midnight + hour * 3600 + minute * 60 + second - offset) * 1_000_000
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar; "days_from_civil" of Hinnant, "chrono-Compatible Low-Level Date
/// Algorithms", 2013.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    // Years begin in March, so that the leap day is the last.
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn usual_forms_are_read() {
        for (text, seconds) in [
            ("1970-01-01", 0.0),
            ("1970-01-01T00:00:01Z", 1.0),
            ("2014-11-28T21:00:09+09:00", 1_417_176_009.0),
            ("2014-11-28t21:00:09+0900", 1_417_176_009.0),
            ("2014-11-28 21:00:09 +09", 1_417_176_009.0),
            ("2014-11-28 12:00:09 UTC", 1_417_176_009.0),
            ("2014-11-28 12:00:09", 1_417_176_009.0),
            ("2014-11-28T12:00:09.5", 1_417_176_009.5),
            ("2014-11-28 12:00:09.123456789z", 1_417_176_009.123456),
            ("2014-11-28 12:00", 1_417_176_000.0),
            ("2000-02-29", 951_782_400.0),
            ("1969-12-31T23:59:59.75Z", -0.25),
            ("2016-12-31T23:59:60Z", 1_483_228_800.0),
        ] {
            let micros = parse_micros(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(micros, (seconds * 1e6_f64).round() as i64, "{text}");
        }
    }

    #[test]
    fn other_texts_are_not() {
        for bad in [
            "",
            "2014",
            "2014-11",
            "2014-13-01",
            "2014-02-29",
            "2014-01-00",
            "2014-1-1",
            "2014-11-28T12:00",
            "20141128",
            "2014-11-28T24:00:00Z",
            "2014-11-28T12:60:00Z",
            "2014-11-28T12:00:61Z",
            "2014-11-28 12:00Z",
            "2014-11-28T12:00:09.Z",
            "2014-11-28T12:00:09+9",
            "2014-11-28T12:00:09Zx",
            "2014-11-28x",
            "tomorrow",
            "1e9",
            "2014-11-28T12:00:09+09:",
            "2014-11-28T12:00:09 ",
        ] {
            assert_eq!(parse_micros(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn days_count_up(year in 0i64..9999, month in 1i64..=12) {
            let next = if month == 12 { days_from_epoch(year + 1, 1, 1) } else { days_from_epoch(year, month + 1, 1) };
            prop_assert_eq!(next - days_from_epoch(year, month, 1), days_in_month(year, month));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9TZtz:. +-]{0,30}|.*") {
            let _ = parse_micros(&text);
        }
    }
}
