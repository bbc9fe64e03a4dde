//! `sluice infer`: a connector's first draft from a sample of objects in any format. No value of theirs is printed.

use std::fmt::Write as _;
use std::io::Write;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;

use super::sample::{Sampled, store};
use super::{EXIT_DONE, SettingsArgs};
use crate::config::{Connector, CsvDialect, FieldType, Format, Settings};
use crate::decode::{DecodeLimits, FieldProfile, Profile, sniff};
use crate::telemetry;

/// Objects below a prefix that are looked at.
const OBJECTS_MAX: usize = 20;

#[derive(Debug, Clone, clap::Args)]
pub struct InferArgs {
    /// Files of one format (JSON, CSV or Parquet, told by content; plain, gzip, zstd), or objects: s3://bucket/prefix
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
    let (mut profile, mut format) = (Profile::default(), None);
    for place in &places {
        for (name, bytes) in objects(place, &settings, &profile, args.rows).await? {
            let found = sniff(bytes.clone(), &limits).with_context(|| format!("could not unpack {name}"))?;
            let format = format.get_or_insert_with(|| found.clone());
            ensure!(
                *format == found,
                "{name} is {}, and the objects before it are {}: a connector reads one format",
                spelled(&found),
                spelled(format)
            );
            profile.add(format, bytes, &limits, args.rows).with_context(|| format!("could not read {name}"))?;
        }
    }
    let format = format.unwrap_or(Format::Json);
    if profile.row_count == 0 {
        bail!(
            "there is no row to infer from: read as {}, {} records are no rows",
            spelled(&format),
            profile.unreadable_count
        );
    }
    let source = places.iter().find_map(|place| match place {
        Sampled::Store(bucket, prefix) => Some((*bucket, *prefix)),
        Sampled::File(_) => None,
    });
    write!(out, "{}", draft(&args.name, source, &format, &profile))?;
    Ok(EXIT_DONE)
}

/// Name and bytes of what is there, as far as rows are still wanted.
async fn objects(
    place: &Sampled<'_>,
    settings: &Settings,
    profile: &Profile,
    rows: u64,
) -> anyhow::Result<Vec<(String, Bytes)>> {
    if profile.is_full(rows) {
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

/// As in a connector.
fn spelled(format: &Format) -> &'static str {
    match format {
        Format::Json => "json",
        Format::JsonValues => "json_values",
        Format::Csv(_) => "csv",
        Format::Parquet => "parquet",
    }
}

/// A field of the draft.
struct Drafted<'a> {
    profile: &'a FieldProfile,
    /// Of the column.
    name: String,
    /// Where its value stands, if the field has another name: `, path: …`.
    place: String,
    data_type: FieldType,
    formats: &'static str,
    is_required: bool,
}

impl<'a> Drafted<'a> {
    /// `None` where no column can be made of it.
    fn new(profile: &'a FieldProfile, format: &Format, row_count: u64) -> Option<Self> {
        let is_in_order = matches!(format, Format::Csv(dialect) if !dialect.has_header);
        let never = is_in_order.then_some(FieldType::Utf8);
        let data_type = profile.declared.or(profile.data_type).or(never)?;
        let kinds: Vec<&str> = profile.kinds.iter().copied().collect();
        let looks_like_time = ["_at", "_ms", "time", "timestamp", "ts"].iter().any(|end| profile.name.ends_with(end));
        let (data_type, formats) = match kinds[..] {
            _ if profile.declared.is_some() => (data_type, ""),
            ["timestamp"] => (FieldType::TimestampMs, "[rfc3339]"),
            ["whole number"] if profile.may_be_epoch_ms && looks_like_time => (FieldType::TimestampMs, "[epoch_ms]"),
            ["timestamp", "whole number"] if profile.may_be_epoch_ms => (FieldType::TimestampMs, "[rfc3339, epoch_ms]"),
            _ => (data_type, ""),
        };
        // mixed with anything else, they have no text of their own
        let is_mixed = kinds.len() > 1 && profile.kinds.contains("object or list");
        let data_type = if is_mixed && profile.declared.is_none() { FieldType::Json } else { data_type };
        let (name, place) = named(&profile.name, format)?;
        Some(Self { profile, name, place, data_type, formats, is_required: profile.value_count == row_count })
    }

    fn is_time(&self) -> bool {
        self.is_required && self.data_type == FieldType::TimestampMs
    }

    fn line(&self, row_count: u64) -> String {
        let FieldProfile { value_count, kinds, declared, .. } = self.profile;
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
        if kinds.len() > 1 && self.formats.is_empty() && declared.is_none() {
            let kinds: Vec<&str> = kinds.iter().copied().collect();
            remarks.push(format!("{}: widened to {}", kinds.join(" and "), self.data_type.name()));
            if self.data_type == FieldType::Utf8 {
                remarks.push("what is no text there becomes a dead letter without `type_change: evolve`".to_owned());
            }
        }
        let remarks = if remarks.is_empty() { String::new() } else { format!("  # {}", remarks.join("; ")) };
        let (name, place) = (quoted(&self.name), &self.place);
        format!("  - {{name: {name}, type: {data_type}{required}{formats}{place}}}{remarks}\n")
    }
}

/// A name that YAML could take for something else.
fn quoted(name: &str) -> String {
    if matches!(name, "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null") {
        return format!("\"{name}\"");
    }
    name.to_owned()
}

/// A column's name made of a field's, and where the field then stands. `None`: no name can be made of it.
fn named(field: &str, format: &Format) -> Option<(String, String)> {
    if Connector::is_column_name(field) {
        return Some((field.to_owned(), String::new()));
    }
    let mut name = String::new();
    let mut last_is_upper = true;
    for character in field.chars() {
        let is_word = character.is_ascii_alphanumeric();
        let begins = character.is_ascii_uppercase() && !last_is_upper;
        if (begins || !is_word) && !name.ends_with('_') && !name.is_empty() {
            name.push('_');
        }
        name.extend(is_word.then(|| character.to_ascii_lowercase()));
        last_is_upper = character.is_ascii_uppercase();
    }
    let name = name.trim_end_matches('_');
    let is_plain = field.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let place = match format {
        Format::Csv(_) => format!(", header: {}", json_text(field)),
        Format::Json | Format::JsonValues | Format::Parquet if is_plain => format!(", path: $.{field}"),
        _ if field.chars().any(|c| c.is_control() || matches!(c, '\'' | '\\')) => return None,
        Format::Json | Format::JsonValues | Format::Parquet => {
            format!(", path: {}", json_text(&format!("$['{field}']")))
        }
    };
    Connector::is_column_name(name).then(|| (name.to_owned(), place))
}

/// The fields of which columns can be made, each name once.
fn columns<'a>(profile: &'a Profile, format: &Format) -> Vec<Drafted<'a>> {
    let mut drafted: Vec<Drafted> = Vec::new();
    let as_they_are = |field: &&FieldProfile| Connector::is_column_name(&field.name);
    let taken: Vec<&str> = profile.fields.iter().filter(as_they_are).map(|field| field.name.as_str()).collect();
    for field in profile.fields.iter().filter_map(|field| Drafted::new(field, format, profile.row_count)) {
        let is_free = field.place.is_empty() || !taken.contains(&field.name.as_str());
        if is_free && drafted.iter().all(|other| other.name != field.name) {
            drafted.push(field);
        }
    }
    drafted
}

fn draft(name: &str, source: Option<(&str, &str)>, format: &Format, profile: &Profile) -> String {
    let rows = profile.row_count;
    let drafted = columns(profile, format);
    let mut text = format!("# Drafted from {rows} rows: look it through before you use it.\n");
    if profile.unreadable_count > 0 {
        let what =
            if matches!(format, Format::Csv(_)) { "have other fields than the first" } else { "are no JSON objects" };
        let _ = writeln!(text, "# {} more rows {what}.", profile.unreadable_count);
    }
    let _ = writeln!(text, "name: {name}\nsource:\n  topic: raw-notifications");
    let (bucket, prefix) = source.unwrap_or(("raw", ""));
    let own_prefix = format!("{name}/");
    let prefix = if prefix.is_empty() { &own_prefix } else { prefix };
    let _ = writeln!(
        text,
        "  bucket: {}\n  prefix: {}\n  format: {}",
        json_text(bucket),
        json_text(prefix),
        spelled(format)
    );
    if let Format::Csv(dialect) = format {
        text.push_str(&csv_line(dialect, profile));
    }
    text.push_str("schema:\n");
    drafted.iter().for_each(|field| text.push_str(&field.line(rows)));
    for field in &profile.fields {
        if drafted.iter().any(|column| column.profile.name == field.name) {
            continue;
        }
        let shown: String = field.name.chars().filter(|c| !c.is_control()).take(64).collect();
        let why = match field.data_type {
            None => "null wherever it stands",
            Some(_) => "no name that a column can have, kept in `_rescued`",
        };
        let _ = writeln!(text, "  # {shown}: {why}");
    }
    text.push_str("evolution: {new_field: rescue, type_change: reject}\n");
    text.push_str(&staging(name, &drafted));
    text.push_str(&key_remark(&drafted, rows));
    text
}

/// What the dialect has otherwise than a connector that says nothing.
fn csv_line(dialect: &CsvDialect, profile: &Profile) -> String {
    let standard = CsvDialect::default();
    let mut said = Vec::new();
    if !dialect.has_header {
        said.push("header: false".to_owned());
    }
    if dialect.delimiter != standard.delimiter {
        said.push(format!("delimiter: {}", json_text(&char::from(dialect.delimiter).to_string())));
    }
    let others: Vec<&str> = profile.nulls.iter().copied().filter(|null| !null.is_empty()).collect();
    if !others.is_empty() {
        let nulls: Vec<String> = std::iter::once("").chain(others).map(json_text).collect();
        said.push(format!("nulls: [{}]", nulls.join(", ")));
    }
    if said.is_empty() { String::new() } else { format!("  csv: {{{}}}\n", said.join(", ")) }
}

fn staging(name: &str, drafted: &[Drafted<'_>]) -> String {
    let times: Vec<&str> = drafted.iter().filter(|field| field.is_time()).map(|field| field.name.as_str()).collect();
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
    let keys: Vec<&str> = drafted.iter().filter(is_key).map(|field| field.name.as_str()).collect();
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

    const LIMITS: DecodeLimits = DecodeLimits {
        record_bytes_max: 1 << 20,
        json_depth_max: 32,
        object_bytes_max: 1 << 20,
        unpacked_ratio_max: 500,
    };

    fn drafted(lines: &[&str]) -> String {
        drafted_of(Bytes::from(lines.join("\n")), &LIMITS)
    }

    fn drafted_of(object: Bytes, limits: &DecodeLimits) -> String {
        let mut profile = Profile::default();
        let format = sniff(object.clone(), limits).expect("it can be unpacked");
        profile.add(&format, object, limits, 1_000).expect("it can be read");
        draft("things", None, &format, &profile)
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
  - {name: user_id, type: int32, path: $.userId}  # 50.0 % null or missing
  - {name: more, type: json, required: true}
  - {name: maybe, type: int64}  # 50.0 % null or missing
  # gone: null wherever it stands
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
    fn a_draft_of_csv_tells_its_dialect_headers_and_nulls() {
        let text =
            drafted(&["Thing ID;at;amount;note", "1;2026-01-01T00:00:00Z;1.50;N/A", "2;2026-01-02T00:00:00Z;3;a"]);
        assert_eq!(
            text,
            r#"# Drafted from 2 rows: look it through before you use it.
name: things
source:
  topic: raw-notifications
  bucket: "raw"
  prefix: "things/"
  format: csv
  csv: {delimiter: ";", nulls: ["", "N/A"]}
schema:
  - {name: thing_id, type: int32, required: true, header: "Thing ID"}
  - {name: at, type: timestamp_ms, required: true, formats: [rfc3339]}
  - {name: amount, type: "decimal(12,2)", required: true}  # decimal number and whole number: widened to decimal(12,2)
  - {name: note, type: utf8}  # 50.0 % null or missing
evolution: {new_field: rescue, type_change: reject}
staging:
  type: things
  time: at
  by: [date, hour]
# A key could be `thing_id`: no value stands twice in 2 rows. Then add
# clean:
#   - dedupe: thing_id
"#
        );
        let text = drafted(&["1,,x", "2,,y"]);
        assert!(text.contains("  csv: {header: false}\n"), "{text}");
        let columns =
            ["column_1, type: int32, required: true", "column_2, type: utf8", "column_3, type: utf8, required"];
        let places = columns.map(|column| text.find(column).unwrap_or_else(|| panic!("{column} in {text}")));
        assert!(places.is_sorted(), "{text}");
    }

    #[test]
    fn a_draft_of_parquet_has_the_types_that_the_file_declares() {
        use arrow::array::{ArrayRef, Decimal128Array, Int64Array, TimestampMicrosecondArray};
        let columns: [(&str, ArrayRef); 3] = [
            ("small", std::sync::Arc::new(Int64Array::from(vec![1, 2]))),
            (
                "at",
                std::sync::Arc::new(
                    TimestampMicrosecondArray::from(vec![1_767_225_600_000_000; 2]).with_timezone("UTC"),
                ),
            ),
            (
                "price",
                std::sync::Arc::new(
                    Decimal128Array::from(vec![Some(100), None]).with_precision_and_scale(12, 2).expect("it fits"),
                ),
            ),
        ];
        let rows = arrow::array::RecordBatch::try_from_iter(columns).expect("columns of two rows");
        let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("plain types");
        writer.write(&rows).expect("memory takes it");
        let object = Bytes::from(writer.into_inner().expect("memory takes it"));
        let text = drafted_of(object, &LIMITS);
        for line in [
            "  format: parquet\n",
            "  - {name: small, type: int64, required: true}\n",
            "  - {name: at, type: timestamp_ms, required: true}\n",
            "  - {name: price, type: \"decimal(12,2)\"}  # 50.0 % null or missing\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_draft_without_an_event_time_says_so() {
        let text = drafted(&[r#"{"a":1}"#, r#"{"a":1}"#]);
        assert!(text.contains("No field is a timestamp in every row") && text.contains("no key to be seen"), "{text}");
    }
}
