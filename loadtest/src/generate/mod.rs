//! Realistic rows with a known fate, the same for the same seed.

mod bulk;
mod dirty;
mod object;
mod rows;

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};
use serde::{Deserialize, Serialize};

use crate::canonical::{Canonical, bytes_hash};

pub use bulk::{BulkGenerator, BulkRow, Dirt};
pub use dirty::DIRTY_KINDS;

/// What is produced: the connectors of the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Dataset {
    Transactions,
    Events,
    DirectEvents,
    Users,
    Products,
}

impl Dataset {
    /// Those that come as objects, facts most often.
    pub const OBJECTS: &[Self] = &[Self::Transactions, Self::Events, Self::Users, Self::Products];
    pub const ALL: &[Self] = &[Self::Transactions, Self::Events, Self::DirectEvents, Self::Users, Self::Products];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Transactions => "transactions",
            Self::Events => "events",
            Self::DirectEvents => "direct-events",
            Self::Users => "users",
            Self::Products => "products",
        }
    }

    /// The table that its rows load into.
    pub fn table(self) -> Table {
        match self {
            Self::Transactions => Table::Transactions,
            Self::Events | Self::DirectEvents => Table::Events,
            Self::Users => Table::Users,
            Self::Products => Table::Products,
        }
    }

    /// Its columns, in the order in which they are generated and hashed.
    pub fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Transactions => &[
                "transaction_id",
                "user_id",
                "product_id",
                "amount",
                "currency",
                "quantity",
                "source",
                "occurred_at",
                "updated_at",
                "attributes",
            ],
            Self::Events | Self::DirectEvents => &[
                "event_id",
                "user_id",
                "product_id",
                "event_type",
                "session_id",
                "source",
                "occurred_at",
                "properties",
            ],
            Self::Users => &["user_id", "email", "name", "country", "source", "updated_at"],
            Self::Products => &["product_id", "name", "brand", "category", "price", "currency", "source", "updated_at"],
        }
    }
}

impl fmt::Display for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    Transactions,
    Events,
    Users,
    Products,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// What a row must become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    Pass(Passing),
    /// An expectation lets it go: it must be nowhere.
    Drop,
    /// A dead letter with this reason and exactly these bytes.
    Reject {
        reason: String,
        bytes_hash: u128,
    },
}

impl Fate {
    /// Of a row that SQL fails on before an expectation can refuse it.
    pub(crate) fn refused_by_sql(&mut self) {
        if let Self::Reject { reason, .. } = self
            && reason == "expectation_failed"
        {
            "sql_failed".clone_into(reason);
        }
    }
}

/// How a row that passes must look in the lake and in the warehouse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passing {
    /// The dedupe key: natural key, and the event time for facts.
    pub key: String,
    /// The greater is the newer: milliseconds of `updated_at`; 0 where all copies are equal.
    pub order: i64,
    /// Hash of the lake's columns, `_rescued` included.
    pub lake_hash: u128,
    /// Hash of the warehouse's columns.
    pub warehouse_hash: u128,
    /// Members that a fact names.
    pub user: Canonical,
    pub product: Canonical,
}

/// A line and its fate.
#[derive(Debug, Clone)]
pub struct Row {
    pub line: Vec<u8>,
    pub fate: Fate,
}

/// What comes next: to be written as it is, or to be spoilt first.
enum Next {
    Clean(rows::Entity),
    Dirty(rows::Entity),
}

/// How rows are made.
#[derive(Debug, Clone)]
pub struct Mix {
    pub dirty_share: f64,
    pub duplicate_share: f64,
    pub late_share: f64,
    /// Milliseconds since 1970; rows lie in the hours before.
    pub base_time_ms: i64,
    /// How far back rows reach; late ones lie up to two days behind that.
    pub hours: u32,
}

/// Makes rows, one dataset at a time, with duplicates and updates of earlier ones.
pub struct Generator {
    rng: StdRng,
    seed: u64,
    mix: Mix,
    users: Zipf<f64>,
    products: Zipf<f64>,
    counter: u64,
    recent: Vec<(Dataset, rows::Entity)>,
}

/// Members that facts name; the last tenth never arrives and stays inferred.
pub(crate) const USERS: u32 = 2_000;
pub(crate) const PRODUCTS: u32 = 500;
const RECENT_MAX: usize = 512;

impl Generator {
    pub fn new(seed: u64, mix: Mix) -> Self {
        let zipf = |count: u32| Zipf::new(f64::from(count), 1.1).expect("a positive count and exponent");
        Self {
            rng: StdRng::seed_from_u64(seed),
            seed,
            mix,
            users: zipf(USERS),
            products: zipf(PRODUCTS),
            counter: 0,
            recent: Vec::new(),
        }
    }

    /// The next row of a dataset as a JSON line: new, a copy or an update of an earlier one, or dirty.
    pub fn row(&mut self, dataset: Dataset) -> Row {
        match self.next(dataset) {
            Next::Clean(entity) => entity.row(dataset),
            Next::Dirty(entity) => dirty::spoil(&mut self.rng, dataset, &entity),
        }
    }

    fn next(&mut self, dataset: Dataset) -> Next {
        if self.rng.random_bool(self.mix.dirty_share) {
            return Next::Dirty(self.entity(dataset));
        }
        if self.rng.random_bool(self.mix.duplicate_share)
            && let Some(entity) = self.again(dataset)
        {
            return Next::Clean(entity);
        }
        let entity = self.entity(dataset);
        let known = (dataset, entity.clone());
        if self.recent.len() < RECENT_MAX {
            self.recent.push(known);
        } else {
            let slot = self.rng.random_range(0..RECENT_MAX);
            self.recent[slot] = known;
        }
        Next::Clean(entity)
    }

    /// An exact copy of an earlier row, or a newer version of it.
    fn again(&mut self, dataset: Dataset) -> Option<rows::Entity> {
        let known: Vec<usize> = (0..self.recent.len()).filter(|index| self.recent[*index].0 == dataset).collect();
        let index = *known.get(self.rng.random_range(0..known.len().max(1)))?;
        let mut entity = self.recent[index].1.clone();
        if self.rng.random_bool(0.5) && entity.update(&mut self.rng) {
            // the earlier version stays known too: versions come in any order
            self.recent[index].1 = entity.clone();
        }
        Some(entity)
    }

    fn entity(&mut self, dataset: Dataset) -> rows::Entity {
        self.counter += 1;
        let user = self.users.sample(&mut self.rng) as u32;
        let product = self.products.sample(&mut self.rng) as u32;
        let late = self.rng.random_bool(self.mix.late_share);
        let id = self.unique_id();
        rows::Entity::new(
            &mut self.rng,
            dataset,
            &rows::Seeds { id, user, product, late, base_time_ms: self.mix.base_time_ms, hours: self.mix.hours },
        )
    }

    /// Unique over runs with different seeds.
    fn unique_id(&self) -> u128 {
        bytes_hash(format!("{}/{}", self.seed, self.counter).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mix() -> Mix {
        Mix { dirty_share: 0.1, duplicate_share: 0.1, late_share: 0.02, base_time_ms: 1_760_000_000_000, hours: 48 }
    }

    #[test]
    fn the_same_seed_makes_the_same_rows() {
        let lines = |seed| {
            let mut generator = Generator::new(seed, mix());
            (0..500).map(|index| generator.row(Dataset::ALL[index % 5]).line).collect::<Vec<_>>()
        };
        assert_eq!(lines(7), lines(7));
        assert_ne!(lines(7), lines(8));
    }

    #[test]
    fn every_kind_of_dirt_and_every_fate_comes() {
        let mut generator = Generator::new(1, mix());
        let mut reasons = std::collections::BTreeSet::new();
        let (mut passed, mut dropped) = (0, 0);
        for index in 0..20_000 {
            match generator.row(Dataset::ALL[index % 5]).fate {
                Fate::Pass(_) => passed += 1,
                Fate::Drop => dropped += 1,
                Fate::Reject { reason, .. } => {
                    reasons.insert(reason);
                }
            }
        }
        assert!(passed > 15_000 && dropped > 0, "{passed} passed, {dropped} dropped");
        assert_eq!(reasons.len(), 8, "{reasons:?}");
    }

    #[test]
    fn lines_of_rows_that_pass_are_json_objects() {
        let mut generator = Generator::new(2, mix());
        for index in 0..5_000 {
            let row = generator.row(Dataset::ALL[index % 5]);
            if matches!(row.fate, Fate::Pass(_) | Fate::Drop) {
                let value: serde_json::Value = serde_json::from_slice(&row.line).expect("valid JSON");
                assert!(value.is_object());
            }
        }
    }
}
