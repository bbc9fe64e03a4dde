//! Transactions of a given length, for measuring beside other engines.
//!
//! # Contract
//! The rows of [`Generator`](super::Generator), but with one spelling a field (RFC 3339, numbers), so that every engine may
//! read them in its fastest way, and with dirt that every engine can tell from good rows. The same seed makes
//! the same rows.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::rows::{Entity, rfc3339};
use super::{Dataset, Generator, Mix, RECENT_MAX};

const DEVICES: &[&str] = &["android", "ios", "windows", "linux", "terminal"];
const WORDS: &[&str] = &[
    "order",
    "ring",
    "the",
    "bell",
    "twice",
    "leave",
    "at",
    "door",
    "gift",
    "wrapped",
    "please",
    "call",
    "before",
    "delivery",
    "voucher",
    "spring",
    "returned",
    "customer",
    "asked",
    "for",
    "invoice",
    "size",
    "larger",
    "colour",
    "größe",
    "blue",
    "green",
    "after",
    "six",
    "paid",
    "partly",
    "refund",
    "pending",
    "express",
    "shop",
    "second",
    "floor",
    "neighbour",
    "fragile",
    "do",
    "not",
    "bend",
    "\"quoted\"",
    "monthly",
    "plan",
    "renewed",
    "trial",
    "upgrade",
    "store",
    "credit",
    "was",
    "used",
    "of",
    "loyalty",
    "points",
    "and",
    "coupon",
    "expired",
    "manual",
    "review",
    "passed",
    "low",
    "risk",
    "score",
];
/// Lines are up to this many bytes shorter or longer than asked for.
const JITTER_BYTES: usize = 64;

/// Why a row must be rejected: the reasons of the decoder and of the connector's expectations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dirt {
    MalformedJson,
    WrongType,
    InvalidValue,
    MissingRequired,
    ExpectationFailed,
}

impl Dirt {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::WrongType => "wrong_type",
            Self::InvalidValue => "invalid_value",
            Self::MissingRequired => "missing_required",
            Self::ExpectationFailed => "expectation_failed",
        }
    }
}

#[derive(Debug, Clone)]
pub struct BulkRow {
    entity: Entity,
    pub dirt: Option<Dirt>,
}

impl BulkRow {
    /// Without the newline.
    pub fn line(&self) -> Vec<u8> {
        let line = self.entity.line();
        match self.dirt {
            Some(Dirt::MalformedJson) => line[..line.len() * 2 / 3].iter().copied().filter(u8::is_ascii).collect(),
            _ => line,
        }
    }

    /// In the order in which they are written; `None`: left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, Option<&Value>)> {
        self.entity.fields.iter().map(|field| (field.name, field.written.as_ref()))
    }

    /// As it must arrive; only of rows that pass.
    pub fn arrives(&self, name: &str) -> Option<String> {
        self.entity.value(name)
    }
}

/// Makes the rows of one file: duplicates are of rows of the same file.
pub struct BulkGenerator {
    rows: Generator,
    row_bytes: usize,
    recent: Vec<Entity>,
}

impl BulkGenerator {
    /// `row_bytes`: mean length of a line with its newline.
    pub fn new(seed: u64, mix: Mix, row_bytes: usize) -> Self {
        Self { rows: Generator::new(seed, mix), row_bytes, recent: Vec::new() }
    }

    pub fn row(&mut self) -> BulkRow {
        if self.rows.rng.random_bool(self.rows.mix.dirty_share) {
            let entity = self.entity();
            return spoil(&mut self.rows.rng, entity);
        }
        if self.rows.rng.random_bool(self.rows.mix.duplicate_share) && !self.recent.is_empty() {
            return BulkRow { entity: self.again(), dirt: None };
        }
        let entity = self.entity();
        if self.recent.len() < RECENT_MAX {
            self.recent.push(entity.clone());
        } else {
            let slot = self.rows.rng.random_range(0..RECENT_MAX);
            self.recent[slot] = entity.clone();
        }
        BulkRow { entity, dirt: None }
    }

    /// An exact copy of an earlier row, or a newer version of it.
    fn again(&mut self) -> Entity {
        let index = self.rows.rng.random_range(0..self.recent.len());
        let mut entity = self.recent[index].clone();
        if self.rows.rng.random_bool(0.5) && entity.update(&mut self.rows.rng) {
            spell_plainly(&mut entity);
            self.recent[index] = entity.clone();
        }
        entity
    }

    fn entity(&mut self) -> Entity {
        let mut entity = self.rows.entity(Dataset::Transactions);
        spell_plainly(&mut entity);
        let target = self.row_bytes.saturating_sub(JITTER_BYTES + 1) + self.rows.rng.random_range(0..=2 * JITTER_BYTES);
        let unpadded_bytes = entity.line().len();
        pad(&mut self.rows.rng, &mut entity, target.saturating_sub(unpadded_bytes));
        entity
    }
}

/// One spelling a field: two engines of three cannot take times as text and as numbers from one column.
fn spell_plainly(entity: &mut Entity) {
    for field in &mut entity.fields {
        let Some(arrives) = &field.arrives else { continue };
        match field.name {
            "amount" => field.written = serde_json::from_str(arrives).ok(),
            "occurred_at" | "updated_at" => {
                field.written = arrives.parse().ok().map(|milliseconds| Value::from(rfc3339(milliseconds)));
            }
            _ => {}
        }
    }
}

/// Makes `attributes` about this many bytes longer.
fn pad(rng: &mut StdRng, entity: &mut Entity, bytes: usize) {
    let Some(field) = entity.fields.iter_mut().find(|field| field.name == "attributes") else { return };
    let Some(Value::Object(attributes)) = &mut field.written else { return };
    let device = json!({
        "os": DEVICES[rng.random_range(0..DEVICES.len())],
        "version": format!("{}.{}", rng.random_range(9..18), rng.random_range(0..10)),
        "trace": format!("{:016x}", rng.random::<u64>()),
    });
    let device_bytes = device.to_string().len() + "\"device\":,".len();
    attributes.insert("device".to_owned(), device);
    let note_bytes = bytes.saturating_sub(device_bytes + "\"note\":\"\",".len());
    let mut note = String::with_capacity(note_bytes + 16);
    while note.len() < note_bytes {
        note.push_str(WORDS[rng.random_range(0..WORDS.len())]);
        note.push(' ');
    }
    note.truncate(note.floor_char_boundary(note_bytes));
    attributes.insert("note".to_owned(), Value::from(note));
    field.arrives = field.written.as_ref().map(Value::to_string);
}

/// Spoils a row so that no engine can take it for a good one.
fn spoil(rng: &mut StdRng, mut entity: Entity) -> BulkRow {
    let kinds: [(&str, Option<Value>, Dirt); 12] = [
        ("attributes", None, Dirt::MalformedJson),
        ("attributes", None, Dirt::MalformedJson),
        ("quantity", Some(json!("seven")), Dirt::WrongType),
        ("amount", Some(json!({"value": 12})), Dirt::WrongType),
        ("amount", Some(json!("twelve")), Dirt::InvalidValue),
        ("occurred_at", Some(json!("yesterday")), Dirt::InvalidValue),
        ("transaction_id", None, Dirt::MissingRequired),
        ("user_id", None, Dirt::MissingRequired),
        ("amount", Some(Value::Null), Dirt::MissingRequired),
        ("occurred_at", Some(Value::Null), Dirt::MissingRequired),
        ("amount", Some(json!(0)), Dirt::ExpectationFailed),
        ("amount", Some(json!(-12.5)), Dirt::ExpectationFailed),
    ];
    let (name, written, dirt) = kinds[rng.random_range(0..kinds.len())].clone();
    if dirt != Dirt::MalformedJson
        && let Some(field) = entity.fields.iter_mut().find(|field| field.name == name)
    {
        field.written = written;
    }
    BulkRow { entity, dirt: Some(dirt) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn rows(seed: u64, count: usize) -> Vec<BulkRow> {
        let mix = Mix {
            dirty_share: 0.05,
            duplicate_share: 0.05,
            late_share: 0.0,
            base_time_ms: 1_760_000_000_000,
            hours: 24,
        };
        let mut generator = BulkGenerator::new(seed, mix, 513);
        (0..count).map(|_| generator.row()).collect()
    }

    #[test]
    fn rows_are_as_long_as_asked_for_and_the_same_for_the_same_seed() {
        let lines = |seed| rows(seed, 4_000).iter().map(BulkRow::line).collect::<Vec<_>>();
        let good: Vec<usize> =
            rows(3, 4_000).iter().filter(|row| row.dirt.is_none()).map(|row| row.line().len() + 1).collect();
        let mean = good.iter().sum::<usize>() as f64 / good.len() as f64;
        assert!((mean - 513.0).abs() < 6.0, "{mean}");
        assert!(lines(3) == lines(3) && lines(3) != lines(4));
    }

    #[test]
    fn good_rows_are_spelt_in_one_way_and_every_kind_of_dirt_comes() {
        let mut dirt = BTreeMap::new();
        for row in rows(1, 10_000) {
            let value = serde_json::from_slice::<Value>(&row.line());
            if let Some(kind) = row.dirt {
                *dirt.entry(kind).or_insert(0) += 1;
                assert_eq!(value.is_err(), kind == Dirt::MalformedJson);
            } else {
                let value = value.expect("a good row is JSON");
                assert!(value["amount"].is_number() && value["occurred_at"].is_string(), "{value}");
            }
        }
        assert_eq!(dirt.len(), 5, "{dirt:?}");
    }

    #[test]
    fn duplicates_have_the_key_of_an_earlier_row() {
        let (mut keys, mut again) = (BTreeSet::new(), 0);
        let rows = rows(2, 10_000);
        for row in rows.iter().filter(|row| row.dirt.is_none()) {
            again += usize::from(!keys.insert((row.arrives("transaction_id"), row.arrives("occurred_at"))));
        }
        assert!((400..600).contains(&again), "{again}");
    }
}
