//! The Date header.

use std::io::Write as _;

use model::WallTime;

use crate::scan;

/// A point in time with a resolution of one second, always in GMT (RFC 3261 section 20.17).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date(u64);

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_S: u64 = 86_400;

impl Date {
    /// The second in which `time` falls.
    pub const fn new(time: WallTime) -> Self {
        Self(time.as_secs())
    }

    /// Reads `Sat, 13 Nov 2010 23:29:00 GMT`; `None` when malformed, when there is no such day or time,
    /// before 1970 and in another zone. The name of the day is checked for its form only.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut words = value.split(|&octet| scan::is(octet, scan::LWS)).filter(|word| !word.is_empty());
        let weekday = words.next()?.strip_suffix(b",")?;
        WEEKDAYS.iter().find(|name| weekday.eq_ignore_ascii_case(name.as_bytes()))?;
        let day = fixed(words.next()?, 2)?;
        let month_name = words.next()?;
        let month = MONTHS.iter().position(|name| month_name.eq_ignore_ascii_case(name.as_bytes()))?;
        let year = fixed(words.next()?, 4)?;
        let mut clock = words.next()?.split(|&octet| octet == b':');
        let (hour, minute, second) =
            (fixed(clock.next()?, 2)?, fixed(clock.next()?, 2)?, fixed(clock.next()?, 2)?);
        let is_ended = clock.next().is_none() && words.next() == Some(b"GMT") && words.next().is_none();
        let month = u64::try_from(month).ok()?;
        let is_real = year >= 1970 && (1..=days_in(year, month)).contains(&day);
        if !is_ended || !is_real || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let months: u64 = (0..month).map(|earlier| days_in(year, earlier)).sum();
        let days = days_before(year) - days_before(1970) + months + day - 1;
        Some(Self(days * DAY_S + hour * 3_600 + minute * 60 + second))
    }

    /// Seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0
    }

    /// Appends the value of a Date header.
    pub fn write_to(self, out: &mut Vec<u8>) {
        let days = self.0 / DAY_S;
        let clock = self.0 % DAY_S;
        let mut year = 1970 + days / 366;
        while days_before(year + 1) - days_before(1970) <= days {
            year += 1;
        }
        let mut day = days - (days_before(year) - days_before(1970));
        let mut month = 0;
        while day >= days_in(year, month) {
            day -= days_in(year, month);
            month += 1;
        }
        let name =
            |names: &[&'static str], at: u64| usize::try_from(at).ok().and_then(|at| names.get(at).copied());
        // Writing to a Vec cannot fail.
        write!(
            out,
            "{}, {:02} {} {year:04} {:02}:{:02}:{:02} GMT",
            name(&WEEKDAYS, days % 7).unwrap_or_default(),
            day + 1,
            name(&MONTHS, month).unwrap_or_default(),
            clock / 3_600,
            clock / 60 % 60,
            clock % 60
        )
        .unwrap_or_default();
    }
}

fn fixed(digits: &[u8], length: usize) -> Option<u64> {
    if digits.len() == length { scan::number(digits).map(u64::from) } else { None }
}

const fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// Days of a month, counted from 0 = January.
const fn days_in(year: u64, month: u64) -> u64 {
    match month {
        1 => 28 + is_leap(year) as u64,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// Days from the year 0 to the first day of this one; the year is at least 1.
const fn days_before(year: u64) -> u64 {
    let past = year - 1;
    past * 365 + past / 4 - past / 100 + past / 400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_and_written_the_same() {
        for (text, seconds) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Sat, 13 Nov 2010 23:29:00 GMT", 1_289_690_940),
            ("Tue, 29 Feb 2000 12:00:01 GMT", 951_825_601),
            ("Sun, 31 Dec 2023 23:59:59 GMT", 1_704_067_199),
            ("Thu, 31 Dec 2099 23:59:59 GMT", 4_102_444_799),
        ] {
            let date = Date::parse(text.as_bytes()).unwrap();
            let mut out = Vec::new();
            date.write_to(&mut out);

            assert_eq!(date.as_secs(), seconds, "{text}");
            assert_eq!(out, text.as_bytes());
            assert_eq!(Date::new(WallTime::from_secs(seconds)), date);
        }
    }

    #[test]
    fn a_malformed_date_is_refused() {
        for bad in [
            "",
            "Fri, 01 Jan 2010 16:00:00 EST",
            "Fri, 01 Jan 2010 16:00:00",
            "Fri, 1 Jan 2010 16:00:00 GMT",
            "Fri 01 Jan 2010 16:00:00 GMT",
            "Fri, 30 Feb 2010 16:00:00 GMT",
            "Fri, 29 Feb 2100 16:00:00 GMT",
            "Fri, 01 Jan 2010 24:00:00 GMT",
            "Fri, 01 Jan 1969 16:00:00 GMT",
            "Fri, 01 Jan 2010 16:00:00 GMT x",
        ] {
            assert_eq!(Date::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
