//! `sluice dead-letters list|show|edit|redrive`: what did not fit, for people.

mod edit;
mod list;
mod redrive;
mod show;

use std::io::Write;
use std::path::PathBuf;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use super::{OutputFormat, SettingsArgs};
use crate::catalog::LetterFilter;
use crate::types::{LetterId, RejectReason};

#[derive(Debug, Clone, clap::Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub action: DeadLettersAction,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum DeadLettersAction {
    /// Show the newest dead letters, or count them
    List(ListArgs),
    /// Show everything about one, with its original bytes
    Show(ShowArgs),
    /// Store corrected bytes, which take its place whenever it is read again
    Edit(EditArgs),
    /// Ask for the micro-batches that hold dead letters to be run again
    Redrive(RedriveArgs),
}

/// Which dead letters are meant.
#[derive(Debug, Clone, clap::Args)]
pub struct FilterArgs {
    /// Only those of this connector
    #[arg(long)]
    pub connector: Option<String>,
    /// Only those with this reason, as in `invalid_value`
    #[arg(long, value_parser = parse_reason)]
    pub reason: Option<String>,
    /// Only those committed since then: RFC 3339, a date, or an age as in `90m`, `12h`, `7d`
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub filter: FilterArgs,
    /// How many to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Read the files, which hold all of them; the catalog has samples
    #[arg(long)]
    pub all: bool,
    /// Count them by connector and reason instead
    #[arg(long)]
    pub summary: bool,
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

#[derive(Debug, Clone, clap::Args)]
pub struct ShowArgs {
    /// `<micro-batch>:<offset>:<record>:<row>`, as `list` prints it
    pub id: LetterId,
    /// Print the original bytes and nothing else
    #[arg(long)]
    pub bytes_only: bool,
}

#[derive(Debug, Clone, clap::Args)]
pub struct EditArgs {
    /// `<micro-batch>:<offset>:<record>:<row>`, as `list` prints it
    pub id: LetterId,
    /// Read the corrected bytes from here (`-`: standard input); without it from standard input, or on a terminal from $EDITOR
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Store them even if they do not fit now, as for a connector that is still to be changed
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true).multiple(true).args(["ids", "connector", "reason", "since"]))]
pub struct RedriveArgs {
    /// Dead letters, as `list` prints their ids
    #[arg(value_name = "ID", conflicts_with_all = ["connector", "reason", "since"])]
    pub ids: Vec<LetterId>,
    #[command(flatten)]
    pub filter: FilterArgs,
    /// Wait until they were run again, for so many seconds at most
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub wait: u64,
}

pub async fn run(settings: &SettingsArgs, args: &DeadLettersArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    match &args.action {
        DeadLettersAction::List(args) => list::run(settings, args, out).await,
        DeadLettersAction::Show(args) => show::run(settings, args, out).await,
        DeadLettersAction::Edit(args) => edit::run(settings, args, out).await,
        DeadLettersAction::Redrive(args) => redrive::run(settings, args, out).await,
    }
}

impl FilterArgs {
    fn filter(&self) -> LetterFilter {
        LetterFilter { connector: self.connector.clone(), reason: self.reason.clone(), since: self.since }
    }
}

fn parse_reason(text: &str) -> Result<String, String> {
    let known = RejectReason::parse(text).map(|reason| reason.as_str().to_owned());
    known.ok_or_else(|| {
        let reasons: Vec<&str> = RejectReason::ALL.iter().map(|reason| reason.as_str()).collect();
        format!("no such reason; there are {}", reasons.join(", "))
    })
}

fn parse_since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Ok(date.and_time(NaiveTime::MIN).and_utc());
    }
    let age = || {
        let (number, seconds) = match text.char_indices().next_back()? {
            (end, 's') => (&text[..end], 1),
            (end, 'm') => (&text[..end], 60),
            (end, 'h') => (&text[..end], 3_600),
            (end, 'd') => (&text[..end], 86_400),
            _ => return None,
        };
        let seconds = number.parse::<u32>().ok().map(i64::from)?.checked_mul(seconds)?;
        Utc::now().checked_sub_signed(TimeDelta::try_seconds(seconds)?)
    };
    age().ok_or_else(|| "expected a time as in 2026-11-20T00:00:00Z, a date, or an age as in 12h".to_owned())
}

/// Who is asking, for the catalog: `user@host`.
fn who() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = variable("USER").or_else(|| variable("LOGNAME")).unwrap_or_else(|| "unknown".to_owned());
    let host = variable("HOSTNAME").or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    match host.as_deref().map(str::trim).filter(|host| !host.is_empty()) {
        Some(host) => format!("{user}@{host}"),
        None => user,
    }
}

/// Text from outside without what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_a_date_or_an_age() {
        let time = |text: &str| parse_since(text).expect("readable");
        assert_eq!(time("2026-11-20T01:00:00+01:00"), time("2026-11-20"));
        let age = Utc::now() - time("90m");
        assert!((5_399..5_460).contains(&age.num_seconds()), "{age}");
        for text in ["", "yesterday", "7w", "-3h", "h", "99999999999d"] {
            assert!(parse_since(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_terminal_would_act_on_is_escaped() {
        assert_eq!(printable("größe\u{1b}[2J\n"), "größe\\u{1b}[2J\\n");
    }
}
