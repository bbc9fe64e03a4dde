//! Ways in which a row does not fit, each with the reason that must be given: ten for JSON, what the format can hold of
//! them for CSV and Parquet.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::object::csv_record;
use super::rows::Entity;
use super::{Dataset, Fate, Row};
use crate::canonical::bytes_hash;

pub const DIRTY_KINDS: usize = 10;

/// Columns of a dataset: its key, a text without rules, its time.
fn columns(dataset: Dataset) -> (&'static str, &'static str, &'static str) {
    match dataset {
        Dataset::Transactions => ("transaction_id", "currency", "occurred_at"),
        Dataset::Events | Dataset::DirectEvents => ("event_id", "session_id", "occurred_at"),
        Dataset::Users => ("user_id", "name", "updated_at"),
        Dataset::Products => ("product_id", "brand", "updated_at"),
    }
}

/// Spoils a row of JSON in one of the ways.
pub(super) fn spoil(rng: &mut StdRng, dataset: Dataset, entity: &Entity) -> Row {
    let (id, text, time) = columns(dataset);
    let (line, reason) = match rng.random_range(0..DIRTY_KINDS) {
        0 => (cut(&entity.line()), "malformed_json"),
        1 => (b"[1, 2, 3]".to_vec(), "not_an_object"),
        2 => (with(entity, id, None), "missing_required"),
        3 => (with(entity, time, Some(Value::Null)), "missing_required"),
        4 => (with(entity, text, Some(json!({"not": "text"}))), "wrong_type"),
        5 => (with(entity, time, Some(json!("yesterday"))), "invalid_value"),
        6 => (with(entity, time, Some(json!("2301-01-01T00:00:00Z"))), "invalid_value"),
        7 => (invalid_utf8(entity), "invalid_utf8"),
        8 => expectation(dataset, entity, time),
        _ => (doubled(entity, time), "duplicate_field"),
    };
    let bytes_hash = bytes_hash(&line);
    Row { line, fate: Fate::Reject { reason: reason.to_owned(), bytes_hash } }
}

/// Spoils a row of CSV. Returns the record without its line end, and the reason.
pub(super) fn spoil_csv(rng: &mut StdRng, dataset: Dataset, entity: &Entity) -> (Vec<u8>, &'static str) {
    const MARK: &str = "spoilt-here";
    let (id, text, time) = columns(dataset);
    let with = |name, value: Option<&str>| csv_record(&changed(entity, name, value.map(Value::from)));
    // where the mark stood
    let marked = |bytes: &[u8]| {
        let record = with(text, Some(MARK));
        let at = memchr::memmem::find(&record, MARK.as_bytes()).expect("it was written");
        [&record[..at], bytes, &record[at + MARK.len()..]].concat()
    };
    match rng.random_range(0..8) {
        0 => (marked(b"\"closed\" too early"), "malformed_csv"),
        1 => (marked(b"\"never closed"), "malformed_csv"),
        2 => ([csv_record(entity).as_slice(), b",more"].concat(), "ragged_row"),
        3 => (with(id, None), "missing_required"),
        4 => (with(time, Some("yesterday")), "invalid_value"),
        5 => (with(time, Some("2301-01-01T00:00:00Z")), "invalid_value"),
        6 => (marked(b"\xff\xfe"), "invalid_utf8"),
        _ => match refused(dataset) {
            Some((name, value)) => (csv_record(&changed(entity, name, Some(value))), "expectation_failed"),
            None => (with(time, Some("12.5")), "invalid_value"),
        },
    }
}

/// Spoils a row of typed columns.
pub(super) fn spoil_typed(rng: &mut StdRng, dataset: Dataset, entity: &Entity) -> (Entity, &'static str) {
    let (id, _, time) = columns(dataset);
    match rng.random_range(0..4) {
        0 => (changed(entity, id, None), "missing_required"),
        1 => (changed(entity, time, None), "missing_required"),
        2 => {
            let mut spoilt = entity.clone();
            for field in spoilt.fields.iter_mut().filter(|field| field.name == time) {
                // 2301-01-01T00:00:00Z
                field.arrives = Some("10445241600000".to_owned());
            }
            (spoilt, "invalid_value")
        }
        _ => match refused(dataset) {
            Some((name, value)) => {
                let mut spoilt = changed(entity, name, Some(value.clone()));
                for field in spoilt.fields.iter_mut().filter(|field| field.name == name) {
                    field.arrives = Some(value.to_string());
                }
                (spoilt, "expectation_failed")
            }
            None => (changed(entity, id, None), "missing_required"),
        },
    }
}

/// A line that ends too early.
fn cut(line: &[u8]) -> Vec<u8> {
    line[..line.len() * 2 / 3].iter().copied().filter(u8::is_ascii).collect()
}

fn with(entity: &Entity, name: &str, value: Option<Value>) -> Vec<u8> {
    changed(entity, name, value).line()
}

fn changed(entity: &Entity, name: &str, value: Option<Value>) -> Entity {
    let mut spoilt = entity.clone();
    let mut found = false;
    for field in spoilt.fields.iter_mut().filter(|field| field.name == name) {
        field.written.clone_from(&value);
        found = true;
    }
    debug_assert!(found, "{name} is a field of every row of its dataset");
    spoilt
}

fn invalid_utf8(entity: &Entity) -> Vec<u8> {
    let mut line = entity.line();
    let at = line.len() - 1;
    line.splice(at..at, *b",\"note\":\"\xff\xfe\"");
    line
}

/// What an expectation refuses; users have none that rejects.
fn refused(dataset: Dataset) -> Option<(&'static str, Value)> {
    match dataset {
        Dataset::Transactions => Some(("amount", json!(0))),
        Dataset::Events | Dataset::DirectEvents => Some(("event_type", json!("teleport"))),
        Dataset::Products => Some(("price", json!(-1))),
        Dataset::Users => None,
    }
}

/// An expectation's refusal, or a second kind of bad value.
fn expectation(dataset: Dataset, entity: &Entity, time: &str) -> (Vec<u8>, &'static str) {
    match refused(dataset) {
        Some((name, value)) => (with(entity, name, Some(value)), "expectation_failed"),
        None => (with(entity, time, Some(json!(12.5))), "wrong_type"),
    }
}

fn doubled(entity: &Entity, name: &str) -> Vec<u8> {
    let mut spoilt = entity.clone();
    let copy = spoilt.fields.iter().find(|field| field.name == name).cloned();
    spoilt.fields.extend(copy);
    spoilt.line()
}
