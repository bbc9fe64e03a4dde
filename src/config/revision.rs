//! Revisions: the same text for the same meaning, another for any difference that shows in the output.
//!
//! What is hashed is a list of lists, never a mapping, so that no order of keys has a say. Comments,
//! quotes and the order of a `default` step's keys in the YAML do not matter; the order of columns,
//! steps and expectations does.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::check_columns::type_name;
use super::{
    CleanStep, Connector, DimensionLink, Field, KeyEncoding, NewField, OnFail, PartitionBy, SourceKind,
    TimestampFormat, WarehouseTable,
};

/// Hexadecimal digits that are kept.
const REVISION_DIGITS: usize = 16;

pub(super) fn of_schema(connector: &Connector) -> String {
    digest(&schema(connector))
}

pub(super) fn of_connector(connector: &Connector) -> String {
    let format = match connector.source.format {
        super::Format::Json => "json",
    };
    let mut parts = vec![
        json!(connector.name),
        json!([json!(connector.source.topic), source_kind(&connector.source.kind), json!(format)]),
        schema(connector),
        connector.clean.iter().map(clean_step).collect::<Value>(),
        connector.expectations.iter().map(|e| json!([e.name, e.expr, on_fail(e.on_fail)])).collect::<Value>(),
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
    digest(&Value::Array(parts))
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
    };
    json!([connector.fields.iter().map(field).collect::<Value>(), new_field])
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
    json!([field.name, type_name(field.data_type), field.required, formats])
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
        CleanStep::Dedupe(columns) => json!(["dedupe", columns]),
    }
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
