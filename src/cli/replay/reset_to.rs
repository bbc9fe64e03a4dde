//! Where the group is to be put: the options of Kafka's own tool.

use chrono::{DateTime, Duration, NaiveDateTime, Utc};

use crate::pipeline::ResetTo;

/// Exactly one of them.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = false)]
#[allow(clippy::struct_field_names, reason = "they are named as in Kafka's tool")]
pub struct ResetToArgs {
    /// To the first message that the log still has
    #[arg(long)]
    to_earliest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// By so many offsets from where the group stands, back where negative
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To the first message since then: 2026-11-20T00:00:00.000, UTC unless it says otherwise
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_datetime: Option<DateTime<Utc>>,
    /// To the first message of the last PT6H, P1DT12H, …
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    by_duration: Option<Duration>,
}

impl ResetToArgs {
    pub(super) fn resolve(&self, now: DateTime<Utc>) -> ResetTo {
        let by_time = self.to_datetime.or_else(|| self.by_duration.map(|duration| now - duration));
        let to = self.to_offset.map(ResetTo::Offset).or_else(|| self.shift_by.map(ResetTo::ShiftBy));
        // clap has seen to it that one is given
        to.or_else(|| by_time.map(ResetTo::Time)).unwrap_or(ResetTo::Earliest)
    }
}

pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    let with_zone = DateTime::parse_from_rfc3339(text).map(|time| time.to_utc());
    with_zone
        .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").map(|time| time.and_utc()))
        .map_err(|_| "expected a time, as in 2026-11-20T00:00:00.000 or 2026-11-20T00:00:00+01:00".to_owned())
}

/// ISO 8601 without years, months and weeks, as Java's Duration reads it.
fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "expected an ISO 8601 duration, as in PT6H, PT90M or P1DT12H".to_owned())
}

fn duration(text: &str) -> Option<Duration> {
    let text = text.strip_prefix('P')?;
    let (days, time) = text.split_once('T').map_or((text, None), |(days, time)| (days, Some(time)));
    let mut milliseconds = 0.0;
    if !days.is_empty() {
        milliseconds += days.strip_suffix('D')?.parse::<u32>().ok().map(f64::from)? * 86_400_000.0;
    }
    if let Some(time) = time {
        let mut rest = time;
        for (unit, factor) in [('H', 3_600_000.0), ('M', 60_000.0), ('S', 1000.0)] {
            if let Some((number, behind)) = rest.split_once(unit) {
                let is_of_it = |c: char| c.is_ascii_digit() || (unit == 'S' && c == '.');
                if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.chars().all(is_of_it) {
                    return None;
                }
                milliseconds += number.parse::<f64>().ok()? * factor;
                rest = behind;
            }
        }
        if !rest.is_empty() || time.is_empty() {
            return None;
        }
    } else if days.is_empty() {
        return None;
    }
    // beyond a century nothing is asked in earnest
    (milliseconds <= 3.2e12).then(|| Duration::milliseconds(milliseconds as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_kafkas_tool() {
        let seconds = |text: &str| duration(text).map(|found| found.num_seconds());
        assert_eq!(seconds("PT1H"), Some(3600));
        assert_eq!(seconds("P1DT12H"), Some(36 * 3600));
        assert_eq!(seconds("P7D"), Some(7 * 86_400));
        assert_eq!(seconds("PT1H2M3.5S"), Some(3723));
        for wrong in
            ["", "P", "PT", "1H", "PT1", "PTH", "P1H", "PT1M1H", "PT-1H", "PT1.5H", "P1W", "PT1e3S", "P999999D"]
        {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_utc() {
        let expected = parse_time("2026-11-20T01:00:00+01:00").expect("RFC 3339");
        assert_eq!(parse_time("2026-11-20T00:00:00"), Ok(expected));
        assert_eq!(parse_time("2026-11-20T00:00:00.000"), Ok(expected));
        assert!(parse_time("yesterday").is_err());
    }
}
