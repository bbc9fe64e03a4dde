//! Ten ways in which a row does not fit, each with the reason that must be given.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::rows::Entity;
use super::{Dataset, Fate, Row};
use crate::canonical::bytes_hash;

pub const DIRTY_KINDS: usize = 10;

/// Spoils a row in one of the ways.
pub(super) fn spoil(rng: &mut StdRng, dataset: Dataset, entity: &Entity) -> Row {
    let (id, text) = match dataset {
        Dataset::Transactions => ("transaction_id", "currency"),
        Dataset::Events | Dataset::DirectEvents => ("event_id", "session_id"),
        Dataset::Users => ("user_id", "name"),
        Dataset::Products => ("product_id", "brand"),
    };
    let time = if matches!(dataset, Dataset::Users | Dataset::Products) { "updated_at" } else { "occurred_at" };
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

/// A line that ends too early.
fn cut(line: &[u8]) -> Vec<u8> {
    line[..line.len() * 2 / 3].iter().copied().filter(u8::is_ascii).collect()
}

fn with(entity: &Entity, name: &str, value: Option<Value>) -> Vec<u8> {
    let mut spoilt = entity.clone();
    let mut found = false;
    for field in spoilt.fields.iter_mut().filter(|field| field.name == name) {
        field.written.clone_from(&value);
        found = true;
    }
    debug_assert!(found, "{name} is a field of every row of its dataset");
    spoilt.line()
}

fn invalid_utf8(entity: &Entity) -> Vec<u8> {
    let mut line = entity.line();
    let at = line.len() - 1;
    line.splice(at..at, *b",\"note\":\"\xff\xfe\"");
    line
}

/// An expectation's refusal; users have none that rejects: a second kind of bad value there.
fn expectation(dataset: Dataset, entity: &Entity, time: &str) -> (Vec<u8>, &'static str) {
    match dataset {
        Dataset::Transactions => (with(entity, "amount", Some(json!(0))), "expectation_failed"),
        Dataset::Events | Dataset::DirectEvents => {
            (with(entity, "event_type", Some(json!("teleport"))), "expectation_failed")
        }
        Dataset::Products => (with(entity, "price", Some(json!(-1))), "expectation_failed"),
        Dataset::Users => (with(entity, time, Some(json!(12.5))), "wrong_type"),
    }
}

fn doubled(entity: &Entity, name: &str) -> Vec<u8> {
    let mut spoilt = entity.clone();
    let copy = spoilt.fields.iter().find(|field| field.name == name).cloned();
    spoilt.fields.extend(copy);
    spoilt.line()
}
