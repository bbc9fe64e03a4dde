//! The format of a source and its dialect.

use super::check_connector::Report;
use super::raw_connector::{RawConnector, RawCsv, RawFormat, RawSource};
use super::yaml::Step;
use super::yaml::Step::{Index, Key};
use super::{Connector, CsvDialect, Field, Format, PathStep, TypeChange};

pub(super) fn format(raw: &RawSource, report: &mut Report<'_>) -> Format {
    let at = |key| [Key("source"), Key(key)];
    if raw.csv.is_some() && !matches!(raw.format, RawFormat::Csv) {
        let help = "add `format: csv`, or leave it out".to_owned();
        report.add_at_key(&at("csv"), "`csv` means nothing for another format", help);
    }
    if raw.bucket.is_none() && !matches!(raw.format, RawFormat::Json) {
        let help = "messages that are records are JSON; name the bucket where objects are meant".to_owned();
        report.add(&at("format"), "only objects have this format", help);
    }
    match raw.format {
        RawFormat::Json => Format::Json,
        RawFormat::JsonValues => Format::JsonValues,
        RawFormat::Parquet => Format::Parquet,
        RawFormat::Csv => Format::Csv(raw.csv.as_ref().map_or_else(CsvDialect::default, |csv| dialect(csv, report))),
    }
}

fn dialect(raw: &RawCsv, report: &mut Report<'_>) -> CsvDialect {
    let default = CsvDialect::default();
    let at = |key| [Key("source"), Key("csv"), Key(key)];
    let delimiter = raw.delimiter.as_deref().map_or(Some(default.delimiter), |text| {
        let delimiter = character(text);
        if delimiter.is_none() {
            let help = "one ASCII character that is no line end, such as \",\", \";\" or \"\\t\"".to_owned();
            report.add(&at("delimiter"), format!("`{}` cannot be a delimiter", text.escape_debug()), help);
        }
        delimiter
    });
    let quote = match raw.quote.as_deref() {
        None => default.quote,
        Some("") => None,
        Some(text) => {
            let quote = character(text);
            if quote.is_none() {
                let help = "one ASCII character that is no line end, or \"\" where nothing is quoted".to_owned();
                report.add(&at("quote"), format!("`{}` cannot be a quote", text.escape_debug()), help);
            }
            quote
        }
    };
    if delimiter.is_some() && delimiter == quote {
        let at = if raw.quote.is_some() { at("quote") } else { at("delimiter") };
        report.add(&at, "quote and delimiter are the same character", None);
    }
    let nulls = raw.nulls.clone().unwrap_or(default.nulls);
    for (index, null) in nulls.iter().enumerate() {
        if nulls[..index].contains(null) {
            let at: Vec<Step<'_>> = at("nulls").into_iter().chain([Index(index)]).collect();
            report.add(&at, format!("`{null}` stands twice in one list"), None);
        }
    }
    let has_header = raw.header.unwrap_or(default.has_header);
    CsvDialect { has_header, delimiter: delimiter.unwrap_or(b','), quote, nulls }
}

fn character(text: &str) -> Option<u8> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r' | 0) => Some(*byte),
        _ => None,
    }
}

/// Values of CSV are text, whatever they look like: there is nothing to widen by.
pub(super) fn evolution(connector: &Connector, report: &mut Report<'_>) {
    if matches!(connector.source.format, Format::Csv(_)) && connector.evolution.type_change == TypeChange::Evolve {
        let at = [Key("evolution"), Key("type_change")];
        let help = "`rescue` keeps the value; a column that holds anything is `utf8`".to_owned();
        report.add(&at, "columns of CSV are not widened", help);
    }
}

/// Names in a header where there is none, and two columns of one name.
pub(super) fn headers(connector: &Connector, raw: &RawConnector, report: &mut Report<'_>) {
    let has_header = matches!(&connector.source.format, Format::Csv(dialect) if dialect.has_header);
    for (index, field) in raw.schema.iter().enumerate() {
        let Some(header) = &field.header else { continue };
        let at = [Key("schema"), Index(index), Key("header")];
        let same = |other: &&Field| other.name != field.name && other.header_name() == header;
        if !has_header {
            report.add_at_key(&at, "`header` means nothing without a CSV header", "leave it out".to_owned());
        } else if let Some(other) = connector.fields.iter().find(same) {
            let help = "a column of the file goes to one column".to_owned();
            report.add(&at, format!("column `{}` takes the same field", other.name), help);
        }
    }
}

/// Paths in a format that has none, two columns of one value, and a place that would be both an object and an array.
pub(super) fn paths(connector: &Connector, raw: &RawConnector, report: &mut Report<'_>) {
    for (index, field) in raw.schema.iter().enumerate() {
        if field.path.is_none() {
            continue;
        }
        let at = [Key("schema"), Index(index), Key("path")];
        if matches!(connector.source.format, Format::Csv(_)) {
            let help = "`header` names its field; a value inside JSON text is for a column of type json".to_owned();
            report.add_at_key(&at, "`path` means nothing for CSV", help);
            continue;
        }
        // left out where its name or its path could not be understood
        let Some(own) = connector.field(&field.name).filter(|own| own.path.is_some()) else { continue };
        for other in connector.fields.iter().filter(|other| other.name != own.name) {
            if other.first_name() != own.first_name() {
                continue;
            }
            let (steps, others) = (rest(own), rest(other));
            if steps == others {
                let help = "a value goes to one column".to_owned();
                report.add(&at, format!("column `{}` takes the same value", other.name), help);
            } else if let Some((PathStep::Name(_), PathStep::Index(_)) | (PathStep::Index(_), PathStep::Name(_))) =
                steps.iter().zip(others).find(|(step, other)| step != other)
            {
                let help = "take the whole value as a column of type json where it may be both".to_owned();
                let message =
                    format!("column `{}` takes for an array what is an object here, or the other way", other.name);
                report.add(&at, message, help);
            }
        }
    }
}

/// The steps behind the first.
fn rest(field: &Field) -> &[PathStep] {
    field.path.as_ref().map_or(&[], |path| path.rest())
}
