//! Durations, dates, numbers and logs as text.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

/// The largest part of a log that the page contains, in bytes.
pub const LOG_LIMIT: usize = 200 << 10;

/// `duration`, as `< 0.1 s`, `0.4 s`, `3 min 12 s` or `1 h 5 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        _ if duration < Duration::from_millis(50) => "< 0.1 s".to_owned(),
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// `time` to the minute.
pub fn date(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).format("%Y-%m-%d %H:%M UTC").to_string()
}

/// `number` with about three digits, or a dash if it is none.
pub fn number(number: f64) -> String {
    if !number.is_finite() {
        return "–".to_owned();
    }
    let decimals = match number.abs() {
        0.0..10.0 if number.fract() != 0.0 => 2,
        10.0..100.0 if number.fract() != 0.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

/// The end of `log` without escape sequences and control characters, at most [`LOG_LIMIT`] bytes in whole lines, and
/// the number of bytes before it.
pub fn tail(log: &str) -> (String, usize) {
    let log = strip_ansi_escapes::strip_str(log);
    let Some(mut start) = log.len().checked_sub(LOG_LIMIT).filter(|start| *start > 0) else {
        return (log, 0);
    };
    while !log.is_char_boundary(start) {
        start += 1;
    }
    if let Some(line) = log[start..].find('\n').filter(|end| start + end + 1 < log.len()) {
        start += line + 1;
    }
    (log[start..].to_owned(), start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        let of = |seconds| duration(Duration::from_secs_f64(seconds));
        assert_eq!(
            [of(0.01), of(0.44), of(59.0), of(192.9), of(3900.0)],
            ["< 0.1 s", "0.4 s", "59.0 s", "3 min 12 s", "1 h 5 min"]
        );
    }

    #[test]
    fn numbers_have_about_three_digits() {
        assert_eq!([0.456, 3.0, 12.34, 123.4, f64::NAN].map(number), ["0.46", "3", "12.3", "123", "–"]);
    }

    #[test]
    fn dates_are_to_the_minute() {
        assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(90)), "1970-01-01 00:01 UTC");
    }

    #[test]
    fn a_large_log_is_cut_at_a_line() {
        let log = "ü is a line\n".repeat(LOG_LIMIT);
        let (tail, left_out) = tail(&log);
        assert!(tail.len() <= LOG_LIMIT && tail.starts_with("ü is a line\n"));
        assert_eq!(tail.len() + left_out, log.len());
    }

    #[test]
    fn a_line_larger_than_the_limit_is_cut_at_a_character() {
        let log = "ü".repeat(LOG_LIMIT) + "\n";
        assert!(tail(&log).0.len() >= LOG_LIMIT - 1);
    }

    #[test]
    fn escape_sequences_and_control_characters_are_removed() {
        assert_eq!(tail("\x1b[0;32m  OK  \x1b[0m\r\n\0<b>\x07\n"), ("  OK  \n<b>\n".to_owned(), 0));
    }
}
