//! What must become of generated files: counts and sums that every engine can be asked for.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use super::BulkPlan;
use crate::canonical::cents;
use crate::generate::BulkRow;

const HOUR_MS: i64 = 3_600_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Expected {
    pub dataset: String,
    pub format: String,
    pub compression: String,
    pub seed: u64,
    pub files: usize,
    /// As they lie on disk.
    pub bytes: u64,
    /// Before compression: of Parquet its pages, encoded.
    pub unpacked_bytes: u64,
    pub rows: u64,
    pub rejected: u64,
    /// Of JSON; the other formats hold other faults.
    pub rejected_by_reason: BTreeMap<String, u64>,
    /// Good rows that a newer one of the same key and file takes the place of.
    pub duplicates: u64,
    /// Good rows, the newest of each key.
    pub deduped: Totals,
    /// All good rows.
    pub with_duplicates: Totals,
    /// Distinct (source, date, hour) of good rows.
    pub table_partitions: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub rows: u64,
    /// Exact, two digits behind the point.
    pub amount_sum: String,
    /// Milliseconds since 1970, added up; text, since it may leave 64 bits.
    pub occurred_at_ms_sum: String,
    /// After cleaning.
    pub rows_by_currency: BTreeMap<String, u64>,
    pub rows_by_source: BTreeMap<String, u64>,
}

/// A good row, as far as it is added up.
#[derive(Debug, Clone)]
struct Good {
    updated_at_ms: i64,
    amount_cents: i64,
    occurred_at_ms: i64,
    currency: String,
    source: String,
}

/// Of one file.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) stored_bytes: u64,
    pub(super) unpacked_bytes: u64,
    rows: u64,
    rejected: BTreeMap<&'static str, u64>,
    with_duplicates: Sums,
    newest: HashMap<(String, i64), Good>,
    table_partitions: BTreeSet<(String, i64)>,
}

#[derive(Debug, Default)]
struct Sums {
    rows: u64,
    amount_cents: i64,
    occurred_at_ms: i128,
    rows_by_currency: BTreeMap<String, u64>,
    rows_by_source: BTreeMap<String, u64>,
}

impl Sums {
    fn add(&mut self, row: &Good) {
        self.rows += 1;
        self.amount_cents += row.amount_cents;
        self.occurred_at_ms += i128::from(row.occurred_at_ms);
        *self.rows_by_currency.entry(row.currency.clone()).or_default() += 1;
        *self.rows_by_source.entry(row.source.clone()).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.amount_cents += other.amount_cents;
        self.occurred_at_ms += other.occurred_at_ms;
        for (sums, others) in
            [(&mut self.rows_by_currency, &other.rows_by_currency), (&mut self.rows_by_source, &other.rows_by_source)]
        {
            for (name, rows) in others {
                *sums.entry(name.clone()).or_default() += rows;
            }
        }
    }

    fn totals(self) -> Totals {
        Totals {
            rows: self.rows,
            amount_sum: cents(self.amount_cents),
            occurred_at_ms_sum: self.occurred_at_ms.to_string(),
            rows_by_currency: self.rows_by_currency,
            rows_by_source: self.rows_by_source,
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, row: &BulkRow) {
        self.rows += 1;
        if let Some(dirt) = row.dirt {
            *self.rejected.entry(dirt.as_str()).or_default() += 1;
            return;
        }
        let text = |name| row.arrives(name).unwrap_or_default();
        let number = |name| text(name).parse::<i64>().expect("the generator wrote milliseconds");
        let good = Good {
            updated_at_ms: number("updated_at"),
            amount_cents: text("amount").replace('.', "").parse().expect("the generator wrote two digits"),
            occurred_at_ms: number("occurred_at"),
            currency: text("currency"),
            source: text("source"),
        };
        self.with_duplicates.add(&good);
        self.table_partitions.insert((good.source.clone(), good.occurred_at_ms.div_euclid(HOUR_MS)));
        let key = (text("transaction_id"), good.occurred_at_ms);
        match self.newest.get(&key) {
            Some(other) if other.updated_at_ms >= good.updated_at_ms => {}
            _ => _ = self.newest.insert(key, good),
        }
    }
}

impl Expected {
    pub(super) fn new(plan: &BulkPlan, tallies: Vec<Tally>) -> Self {
        let (mut deduped, mut with_duplicates) = (Sums::default(), Sums::default());
        let mut rejected: BTreeMap<String, u64> = BTreeMap::new();
        let mut table_partitions = BTreeSet::new();
        for tally in &tallies {
            tally.newest.values().for_each(|row| deduped.add(row));
            with_duplicates.merge(&tally.with_duplicates);
            table_partitions.extend(tally.table_partitions.iter().cloned());
            for (reason, rows) in &tally.rejected {
                *rejected.entry((*reason).to_owned()).or_default() += rows;
            }
        }
        Self {
            dataset: plan.dataset.to_string(),
            format: plan.format.extension().to_owned(),
            compression: format!("{:?}", plan.compression).to_lowercase(),
            seed: plan.seed,
            files: tallies.len(),
            bytes: tallies.iter().map(|tally| tally.stored_bytes).sum(),
            unpacked_bytes: tallies.iter().map(|tally| tally.unpacked_bytes).sum(),
            rows: tallies.iter().map(|tally| tally.rows).sum(),
            rejected: rejected.values().sum(),
            rejected_by_reason: rejected,
            duplicates: with_duplicates.rows - deduped.rows,
            deduped: deduped.totals(),
            with_duplicates: with_duplicates.totals(),
            table_partitions: table_partitions.len(),
        }
    }
}
