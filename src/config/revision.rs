//! Revisions: the same text for the same meaning, another for any difference that shows in the output.
//!
//! What is hashed is a list of lists, never a mapping, so that no order of keys has a say. Comments,
//! quotes and the order of a `default` step's keys in the YAML do not matter; the order of columns,
//! steps and expectations does.

use std::fmt::Write;
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::check_columns::type_name;
use super::{
    Check, CheckStage, CleanStep, Connector, CsvDialect, DimensionLink, Expectation, Field, Format, JoinSource,
    JoinTable, KeyEncoding, Mask, NewField, OnFail, Otherwise, PartitionBy, SourceKind, TimestampFormat, TypeChange,
    WarehouseTable,
};

/// Hexadecimal digits that are kept.
const REVISION_DIGITS: usize = 16;

pub(super) fn of_schema(connector: &Connector) -> String {
    digest(&schema(connector))
}

/// `sql`, `tables`: of its transform.
pub(super) fn of_connector(connector: &Connector, sql: Option<&str>, tables: &[Arc<JoinTable>]) -> String {
    let mut parts = vec![
        json!(connector.name),
        json!([json!(connector.source.topic), source_kind(&connector.source.kind), format(&connector.source.format)]),
        schema(connector),
        connector.clean.iter().map(clean_step).collect::<Value>(),
        connector.expectations.iter().map(expectation).collect::<Value>(),
        json!([
            json!(connector.staging.dataset),
            json!(connector.staging.type_name),
            json!(connector.staging.time),
            connector.staging.by.iter().map(level).collect::<Value>(),
            json!(connector.staging.file_size_bytes_target),
        ]),
        json!(connector.warehouse.as_ref().map(|warehouse| {
            let (kind, table) = match &warehouse.target {
                WarehouseTable::Fact(table) => ("fact", table),
                WarehouseTable::Dimension(table) => ("dimension", table),
            };
            let links: Value = warehouse.dimensions.iter().map(dimension_link).collect();
            json!([kind, table, warehouse.key, warehouse.newer_by, links])
        })),
    ];
    // connectors without one keep the revision that they have
    parts.extend(connector.breaker.map(|breaker| json!([breaker.dead_letter_share_max, breaker.rows_min])));
    parts.extend(sql.map(|sql| json!(["sql", sql])));
    let time_changes = connector.warehouse.as_ref().is_some_and(|warehouse| warehouse.time_changes);
    parts.extend(time_changes.then(|| json!("time_changes")));
    if !tables.is_empty() {
        parts.push(json!(["tables", tables.iter().map(|table| self::table(table)).collect::<Value>()]));
    }
    let rows = connector.warehouse.as_ref().and_then(|warehouse| warehouse.rows.as_ref());
    parts.extend(rows.map(|sql| json!(["rows", sql])));
    let staging = &connector.staging;
    if !staging.sort_by.is_empty() || !staging.bloom_filter.is_empty() || !staging.page_index {
        parts.push(json!(["staging", staging.sort_by, staging.bloom_filter, staging.page_index]));
    }
    digest(&Value::Array(parts))
}

/// A file's bytes, and which dimension: what that says may change, and how soon it is seen makes no other rows.
fn table(table: &JoinTable) -> Value {
    let columns: Value = table.columns.iter().map(field).collect();
    match &table.source {
        JoinSource::File { hash } => json!([table.name, "file", hash, columns]),
        JoinSource::Dimension { dimension, .. } => json!([table.name, "dimension", dimension, columns]),
    }
}

/// A link without a name keeps the text that it had.
fn dimension_link(link: &DimensionLink) -> Value {
    match &link.resolve {
        None => json!([link.dimension, link.key]),
        Some(name) => json!([link.dimension, link.key, name.column, name.against, name.identifiers, name.propose_only]),
    }
}

fn digest(value: &Value) -> String {
    let digest = Sha256::digest(value.to_string().as_bytes());
    let mut text = String::with_capacity(REVISION_DIGITS);
    for byte in digest.iter().take(REVISION_DIGITS / 2) {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

fn schema(connector: &Connector) -> Value {
    let new_field = match connector.evolution.new_field {
        NewField::Ignore => "ignore",
        NewField::Rescue => "rescue",
        NewField::Reject => "reject",
        NewField::Evolve => "evolve",
    };
    let type_change = match connector.evolution.type_change {
        TypeChange::Reject => None,
        TypeChange::Ignore => Some("ignore"),
        TypeChange::Rescue => Some("rescue"),
        TypeChange::Evolve => Some("evolve"),
    };
    let mut parts = vec![connector.fields.iter().map(field).collect::<Value>(), json!(new_field)];
    // connectors that reject keep the revision that they have
    parts.extend(type_change.map(|policy| json!(["type_change", policy])));
    Value::Array(parts)
}

fn field(field: &Field) -> Value {
    let formats: Value = field
        .formats
        .iter()
        .map(|format| match format {
            TimestampFormat::Rfc3339 => "rfc3339",
            TimestampFormat::EpochMs => "epoch_ms",
        })
        .collect();
    let mut parts = vec![json!(field.name), json!(type_name(field.data_type)), json!(field.required), formats];
    // columns without one keep the revision that they have
    parts.extend(field.header.as_ref().map(|header| json!(header)));
    parts.extend(field.path.as_ref().map(|path| json!(["path", path.to_string()])));
    Value::Array(parts)
}

fn format(format: &Format) -> Value {
    match format {
        Format::Json => json!("json"),
        Format::JsonValues => json!("json_values"),
        Format::Parquet => json!("parquet"),
        Format::Csv(CsvDialect { has_header, delimiter, quote, nulls }) => {
            json!(["csv", has_header, delimiter, quote, nulls])
        }
    }
}

fn source_kind(kind: &SourceKind) -> Value {
    match kind {
        SourceKind::Objects { bucket, prefix, key_encoding, overwrite } => {
            let key_encoding = match key_encoding {
                KeyEncoding::Auto => "auto",
                KeyEncoding::Form => "form",
                KeyEncoding::Literal => "literal",
            };
            json!(["objects", bucket, prefix, key_encoding, overwrite.as_str()])
        }
        SourceKind::Records => json!(["records"]),
    }
}

fn clean_step(step: &CleanStep) -> Value {
    match step {
        CleanStep::Trim(columns) => json!(["trim", columns]),
        CleanStep::Lowercase(columns) => json!(["lowercase", columns]),
        CleanStep::Uppercase(columns) => json!(["uppercase", columns]),
        CleanStep::Default(values) => json!(["default", values]),
        CleanStep::Nulls { columns, values } => json!(["nulls", columns, values]),
        CleanStep::Clamp(bounds) => {
            let bounds: Value = bounds.iter().map(|bound| json!([bound.column, bound.min, bound.max])).collect();
            json!(["clamp", bounds])
        }
        CleanStep::Replace { columns, pattern, with } => json!(["replace", columns, pattern, with]),
        CleanStep::Map { columns, values, otherwise } => {
            let otherwise = match otherwise {
                Otherwise::Keep => "keep",
                Otherwise::Clear => "clear",
                Otherwise::Reject => "reject",
            };
            json!(["map", columns, values, otherwise])
        }
        CleanStep::Mask { columns, mask: Mask::KeepLast(count) } => json!(["mask", columns, "keep_last", count]),
        CleanStep::Mask { columns, mask: Mask::Fixed(text) } => json!(["mask", columns, "fixed", text]),
        // which key, never the key
        CleanStep::Hash { columns, key } => json!(["hash", columns, key.name, key.fingerprint()]),
        CleanStep::ParseUnits { from, to, unit } => json!(["parse_units", from, to, unit.symbol]),
        CleanStep::Dedupe(columns) => json!(["dedupe", columns]),
        CleanStep::DedupeWithin(window) => {
            json!(["dedupe", window.columns, "within", window.window_ms, window.rows_max])
        }
    }
}

/// Those of rows after the clean steps keep the text that they had when there were no others.
fn expectation(expectation: &Expectation) -> Value {
    let Expectation { name, stage, check, on_fail } = expectation;
    let check = match check {
        Check::Row(sql) if *stage == CheckStage::AfterTransform => return json!([name, sql, self::on_fail(*on_fail)]),
        Check::Row(sql) => json!(["row", sql]),
        Check::NullShare { column, max } => json!(["null_share", column, max]),
        Check::RowCount { last, min, max } => json!(["row_count", last, min, max]),
        Check::Unique(columns) => json!(["unique", columns]),
        Check::Freshness { max_ms } => json!(["freshness", max_ms]),
    };
    json!([name, stage.as_str(), check, self::on_fail(*on_fail)])
}

fn on_fail(on_fail: OnFail) -> &'static str {
    match on_fail {
        OnFail::Warn => "warn",
        OnFail::Drop => "drop",
        OnFail::Reject => "reject",
        OnFail::Fail => "fail",
    }
}

fn level(by: &PartitionBy) -> Value {
    match by {
        PartitionBy::Column(column) => json!(["column", column]),
        PartitionBy::Date => json!(["date"]),
        PartitionBy::Hour => json!(["hour"]),
    }
}
