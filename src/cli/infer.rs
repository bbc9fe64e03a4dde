//! `sluice infer`: a connector's first draft from a sample of objects. No value of theirs is printed.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use super::sample::{Sampled, store};
use super::{EXIT_DONE, SettingsArgs};
use crate::config::{Connector, FieldType, Settings};
use crate::decode::{DecodeLimits, FieldProfile, Profile};
use crate::telemetry;

/// Objects below a prefix that are looked at.
const OBJECTS_MAX: usize = 20;

#[derive(Debug, Clone, clap::Args)]
pub struct InferArgs {
    /// Files of JSON lines (plain, gzip, zstd), or objects of the raw store: s3://bucket/prefix
    #[arg(required = true, value_name = "FILE|s3://bucket/prefix")]
    pub objects: Vec<String>,
    /// Name of the connector
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// Rows to look at, from the first object's first on
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub rows: u64,
}

pub async fn run(settings: &SettingsArgs, args: &InferArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    telemetry::init_logs_quiet();
    ensure!(
        Connector::is_name(&args.name),
        "`{}` cannot be a connector's name: lower-case letters, digits and hyphens, beginning with a letter",
        args.name
    );
    let places = args.objects.iter().map(|place| Sampled::parse(place)).collect::<anyhow::Result<Vec<_>>>()?;
    let needs = places.iter().flat_map(Sampled::needs).copied().collect::<Vec<_>>();
    let settings = settings.load(&needs)?;
    let limits = DecodeLimits::new(&settings.limits);
    let mut profile = Profile::default();
    for place in &places {
        for (name, bytes) in objects(place, &settings, &profile, args.rows).await? {
            profile.add_json(bytes, &limits, args.rows).with_context(|| format!("could not read {name}"))?;
        }
    }
    if profile.row_count == 0 {
        bail!("none of the rows is a JSON object: there is nothing to infer from");
    }
    let source = places.iter().find_map(|place| match place {
        Sampled::Store(bucket, prefix) => Some((*bucket, *prefix)),
        Sampled::File(_) => None,
    });
    write!(out, "{}", draft(&args.name, source, &profile))?;
    Ok(EXIT_DONE)
}

/// Name and bytes of what is there, as far as rows are still wanted.
async fn objects(
    place: &Sampled<'_>,
    settings: &Settings,
    profile: &Profile,
    rows: u64,
) -> anyhow::Result<Vec<(String, Bytes)>> {
    if profile.row_count + profile.unreadable_count >= rows {
        return Ok(Vec::new());
    }
    let Sampled::Store(bucket, prefix) = place else {
        let Sampled::File(path) = place else { return Ok(Vec::new()) };
        return Ok(vec![(path.display().to_string(), place.read(settings).await?)]);
    };
    let page = store(settings).list_page(bucket, prefix, None).await?;
    let mut found = Vec::new();
    for object in page.objects.iter().filter(|object| object.size_bytes > 0).take(OBJECTS_MAX) {
        found.push((object.key.clone(), Sampled::Store(bucket, &object.key).read(settings).await?));
    }
    ensure!(!found.is_empty(), "there is no object below s3://{bucket}/{prefix}");
    Ok(found)
}

/// A field of the draft.
struct Drafted<'a> {
    profile: &'a FieldProfile,
    data_type: FieldType,
    formats: &'static str,
    is_required: bool,
}

impl<'a> Drafted<'a> {
    fn new(profile: &'a FieldProfile, row_count: u64) -> Option<Self> {
        let data_type = profile.data_type?;
        let kinds: Vec<&str> = profile.kinds.iter().copied().collect();
        let looks_like_time = ["_at", "_ms", "time", "timestamp", "ts"].iter().any(|end| profile.name.ends_with(end));
        let (data_type, formats) = match kinds[..] {
            ["timestamp"] => (FieldType::TimestampMs, "[rfc3339]"),
            ["whole number"] if profile.may_be_epoch_ms && looks_like_time => (FieldType::TimestampMs, "[epoch_ms]"),
            ["timestamp", "whole number"] if profile.may_be_epoch_ms => (FieldType::TimestampMs, "[rfc3339, epoch_ms]"),
            _ => (data_type, ""),
        };
        // mixed with anything else, they have no text of their own
        let data_type =
            if kinds.len() > 1 && profile.kinds.contains("object or list") { FieldType::Json } else { data_type };
        Some(Self { profile, data_type, formats, is_required: profile.value_count == row_count })
    }

    fn is_time(&self) -> bool {
        self.is_required && self.data_type == FieldType::TimestampMs
    }

    fn line(&self, row_count: u64) -> String {
        let FieldProfile { name, value_count, kinds, .. } = self.profile;
        let data_type = match self.data_type {
            FieldType::Decimal { .. } => format!("\"{}\"", self.data_type.name()),
            _ => self.data_type.name(),
        };
        let required = if self.is_required { ", required: true" } else { "" };
        let formats = if self.formats.is_empty() { String::new() } else { format!(", formats: {}", self.formats) };
        let mut remarks = Vec::new();
        if !self.is_required {
            let missing = row_count.saturating_sub(*value_count);
            remarks.push(format!("{:.1} % null or missing", 100.0 * missing as f64 / row_count as f64));
        }
        if kinds.len() > 1 && self.formats.is_empty() {
            let kinds: Vec<&str> = kinds.iter().copied().collect();
            remarks.push(format!("{}: widened to {}", kinds.join(" and "), self.data_type.name()));
            if self.data_type == FieldType::Utf8 {
                remarks.push("what is no text there becomes a dead letter without `type_change: evolve`".to_owned());
            }
        }
        let remarks = if remarks.is_empty() { String::new() } else { format!("  # {}", remarks.join("; ")) };
        format!("  - {{name: {}, type: {data_type}{required}{formats}}}{remarks}\n", quoted(name))
    }
}

/// A name that YAML could take for something else.
fn quoted(name: &str) -> String {
    if matches!(name, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null") {
        return format!("\"{name}\"");
    }
    name.to_owned()
}

fn draft(name: &str, source: Option<(&str, &str)>, profile: &Profile) -> String {
    let rows = profile.row_count;
    let is_column = |field: &&FieldProfile| Connector::is_column_name(&field.name);
    let drafted: Vec<Drafted> =
        profile.fields.iter().filter(is_column).filter_map(|field| Drafted::new(field, rows)).collect();
    let mut text = format!("# Drafted from {rows} rows: look it through before you use it.\n");
    if profile.unreadable_count > 0 {
        let _ = writeln!(text, "# {} more rows are no JSON objects.", profile.unreadable_count);
    }
    let _ = writeln!(text, "name: {name}\nsource:\n  topic: raw-notifications");
    let (bucket, prefix) = source.unwrap_or(("raw", ""));
    let own_prefix = format!("{name}/");
    let prefix = if prefix.is_empty() { &own_prefix } else { prefix };
    let _ = writeln!(text, "  bucket: {}\n  prefix: {}\n  format: json\nschema:", json_text(bucket), json_text(prefix));
    drafted.iter().for_each(|field| text.push_str(&field.line(rows)));
    for field in profile.fields.iter().filter(|field| field.data_type.is_none() && is_column(field)) {
        let _ = writeln!(text, "  # {}: null wherever it stands", field.name);
    }
    for field in profile.fields.iter().filter(|field| !is_column(field)) {
        let shown: String = field.name.chars().filter(|c| !c.is_control()).take(64).collect();
        let _ = writeln!(text, "  # {shown}: no name that a column can have, kept in `_rescued`");
    }
    text.push_str("evolution: {new_field: rescue, type_change: reject}\n");
    text.push_str(&staging(name, &drafted));
    text.push_str(&key_remark(&drafted, rows));
    text
}

fn staging(name: &str, drafted: &[Drafted<'_>]) -> String {
    let times: Vec<&str> =
        drafted.iter().filter(|field| field.is_time()).map(|field| field.profile.name.as_str()).collect();
    let is_likely = |name: &&&str| ["occurred", "event", "created", "happened"].iter().any(|word| name.contains(word));
    let Some(time) = times.iter().find(is_likely).or(times.first()) else {
        return "# No field is a timestamp in every row: name one here, and require it above.\n# staging: {type: …, time: …, by: [date, hour]}\n".to_owned();
    };
    let others: Vec<&str> = times.iter().filter(|other| *other != time).copied().collect();
    let remark = if others.is_empty() { String::new() } else { format!("  # or {}", others.join(", ")) };
    format!("staging:\n  type: {name}\n  time: {time}{remark}\n  by: [date, hour]\n")
}

/// The field that could name a row.
fn key_remark(drafted: &[Drafted<'_>], rows: u64) -> String {
    let is_key = |field: &&Drafted<'_>| {
        field.is_required
            && field.profile.is_distinct
            && matches!(field.data_type, FieldType::Uuid | FieldType::Utf8 | FieldType::Int32 | FieldType::Int64)
    };
    let keys: Vec<&str> = drafted.iter().filter(is_key).map(|field| field.profile.name.as_str()).collect();
    let named = keys.iter().find(|name| **name == "id" || name.ends_with("_id")).or(keys.first());
    match named {
        Some(key) => format!(
            "# A key could be `{key}`: no value stands twice in {rows} rows. Then add\n# clean:\n#   - dedupe: {key}\n"
        ),
        None => "# No field differs in every row: there is no key to be seen.\n".to_owned(),
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drafted(lines: &[&str]) -> String {
        let limits = DecodeLimits { record_bytes_max: 1 << 20, json_depth_max: 32, object_bytes_max: 1 << 20 };
        let mut profile = Profile::default();
        profile.add_json(Bytes::from(lines.join("\n")), &limits, 1_000).expect("it is not packed");
        draft("things", None, &profile)
    }

    #[test]
    fn a_draft_tells_types_nulls_mixtures_and_no_value() {
        let text = drafted(&[
            r#"{"thing_id":1,"created_at":"2026-01-01T00:00:00Z","sent_ms":1767225600000,"price":1.5,"mixed":1,"who":"secret","userId":1,"gone":null,"more":{"a":1},"maybe":3000000000}"#,
            "no json",
            r#"{"thing_id":2,"created_at":"2026-01-02T00:00:00Z","sent_ms":1767225600001,"price":10,"mixed":"x","who":"secret","more":[],"maybe":null}"#,
        ]);
        assert_eq!(
            text,
            r#"# Drafted from 2 rows: look it through before you use it.
# 1 more rows are no JSON objects.
name: things
source:
  topic: raw-notifications
  bucket: "raw"
  prefix: "things/"
  format: json
schema:
  - {name: thing_id, type: int32, required: true}
  - {name: created_at, type: timestamp_ms, required: true, formats: [rfc3339]}
  - {name: sent_ms, type: timestamp_ms, required: true, formats: [epoch_ms]}
  - {name: price, type: "decimal(11,1)", required: true}  # decimal number and whole number: widened to decimal(11,1)
  - {name: mixed, type: utf8, required: true}  # text and whole number: widened to utf8; what is no text there becomes a dead letter without `type_change: evolve`
  - {name: who, type: utf8, required: true}
  - {name: more, type: json, required: true}
  - {name: maybe, type: int64}  # 50.0 % null or missing
  # gone: null wherever it stands
  # userId: no name that a column can have, kept in `_rescued`
evolution: {new_field: rescue, type_change: reject}
staging:
  type: things
  time: created_at  # or sent_ms
  by: [date, hour]
# A key could be `thing_id`: no value stands twice in 2 rows. Then add
# clean:
#   - dedupe: thing_id
"#
        );
    }

    #[test]
    fn a_draft_without_an_event_time_says_so() {
        let text = drafted(&[r#"{"a":1}"#, r#"{"a":1}"#]);
        assert!(text.contains("No field is a timestamp in every row") && text.contains("no key to be seen"), "{text}");
    }
}
