//! The ledgers of a micro-batch: each offset, object and row counted once, sums asserted before the commit (BOOK-1).

use std::collections::BTreeMap;

use thiserror::Error;

use crate::catalog::OutcomeRecord;
use crate::types::{ObjectOutcome, OffsetOutcome, OffsetRange, RowOutcome};

/// What the ledgers must add up to, counted independently of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub objects: u64,
    pub rows_in: u64,
    /// Sum of the row counts of the data files.
    pub rows_out: u64,
    /// Sum of the row counts of the dead letter files.
    pub dead_letters: u64,
}

/// Counts by outcome; per connector (empty where none is known) but for offsets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledgers {
    offsets: BTreeMap<OffsetOutcome, u64>,
    objects: BTreeMap<(String, ObjectOutcome), u64>,
    rows_in: BTreeMap<(String, RowOutcome), u64>,
    rows_out: BTreeMap<(String, String), u64>,
}

#[derive(Debug, Error, PartialEq, Eq)]
#[error("the {ledger} ledger counts {counted}, but there are {total}")]
pub struct LedgerError {
    pub ledger: &'static str,
    pub counted: u64,
    pub total: u64,
}

impl Ledgers {
    pub fn offset(&mut self, outcome: OffsetOutcome, count: u64) {
        add(&mut self.offsets, outcome, count);
    }

    pub fn object(&mut self, connector: &str, outcome: ObjectOutcome) {
        add(&mut self.objects, (connector.to_owned(), outcome), 1);
    }

    pub fn rows_in(&mut self, connector: &str, outcome: RowOutcome, count: u64) {
        add(&mut self.rows_in, (connector.to_owned(), outcome), count);
    }

    pub fn rows_out(&mut self, connector: &str, dataset: &str, count: u64) {
        add(&mut self.rows_out, (connector.to_owned(), dataset.to_owned()), count);
    }

    /// Adds what was counted elsewhere.
    pub fn append(&mut self, next: &Self) {
        next.offsets.iter().for_each(|(key, count)| add(&mut self.offsets, *key, *count));
        next.objects.iter().for_each(|(key, count)| add(&mut self.objects, key.clone(), *count));
        next.rows_in.iter().for_each(|(key, count)| add(&mut self.rows_in, key.clone(), *count));
        next.rows_out.iter().for_each(|(key, count)| add(&mut self.rows_out, key.clone(), *count));
    }

    /// BOOK-1. Row-wise connectors put out each row that passed, and every rejected offset, quarantined
    /// object and rejected row is a dead letter.
    pub fn assert_balance(&self, range: OffsetRange, totals: Totals) -> Result<(), LedgerError> {
        let passed = self.rows_with(RowOutcome::Passed);
        let rejected = self.offsets.get(&OffsetOutcome::Rejected).copied().unwrap_or(0)
            + self.objects_with(ObjectOutcome::Quarantined)
            + self.rows_with(RowOutcome::Rejected);
        let checks = [
            ("offsets", self.offsets.values().sum(), range.count()),
            ("objects", self.objects.values().sum(), totals.objects),
            ("rows_in", self.rows_in.values().sum(), totals.rows_in),
            ("rows_out", self.rows_out.values().sum(), totals.rows_out),
            ("rows passed", passed, totals.rows_out),
            ("dead letters", rejected, totals.dead_letters),
        ];
        match checks.into_iter().find(|(_, counted, total)| counted != total) {
            Some((ledger, counted, total)) => Err(LedgerError { ledger, counted, total }),
            None => Ok(()),
        }
    }

    fn objects_with(&self, outcome: ObjectOutcome) -> u64 {
        self.objects.iter().filter(|((_, found), _)| *found == outcome).map(|(_, count)| count).sum()
    }

    fn rows_with(&self, outcome: RowOutcome) -> u64 {
        self.rows_in.iter().filter(|((_, found), _)| *found == outcome).map(|(_, count)| count).sum()
    }

    pub fn offsets(&self) -> impl Iterator<Item = (OffsetOutcome, u64)> {
        self.offsets.iter().map(|(outcome, count)| (*outcome, *count))
    }

    /// Connector, outcome, count.
    pub fn objects(&self) -> impl Iterator<Item = (&str, ObjectOutcome, u64)> {
        self.objects.iter().map(|((connector, outcome), count)| (connector.as_str(), *outcome, *count))
    }

    /// Connector, outcome, count.
    pub fn rows(&self) -> impl Iterator<Item = (&str, RowOutcome, u64)> {
        self.rows_in.iter().map(|((connector, outcome), count)| (connector.as_str(), *outcome, *count))
    }

    /// Connector, dataset, count.
    pub fn rows_out_by_connector(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.rows_out.iter().map(|((connector, dataset), count)| (connector.as_str(), dataset.as_str(), *count))
    }

    /// Dataset, count.
    pub fn datasets(&self) -> impl Iterator<Item = (&str, u64)> {
        self.rows_out.iter().map(|((_, dataset), count)| (dataset.as_str(), *count))
    }

    /// As the catalog keeps them; outcomes that did not happen are left out.
    pub fn records(&self) -> Vec<OutcomeRecord> {
        let record = |ledger, connector: &str, outcome: &str, count: u64| OutcomeRecord {
            ledger,
            connector: connector.to_owned(),
            outcome: outcome.to_owned(),
            count: count as i64,
        };
        let offsets = self.offsets().map(|(outcome, count)| record("offsets", "", outcome.as_str(), count));
        let objects =
            self.objects().map(|(connector, outcome, count)| record("objects", connector, outcome.as_str(), count));
        let rows_in =
            self.rows().map(|(connector, outcome, count)| record("rows_in", connector, outcome.as_str(), count));
        let rows_out =
            self.rows_out.iter().map(|((connector, dataset), count)| record("rows_out", connector, dataset, *count));
        offsets.chain(objects).chain(rows_in).chain(rows_out).collect()
    }
}

fn add<K: Ord>(ledger: &mut BTreeMap<K, u64>, key: K, count: u64) {
    if count > 0 {
        *ledger.entry(key).or_insert(0) += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, next: i64) -> OffsetRange {
        OffsetRange::new(first, next).expect("a range of the test's own")
    }

    fn balanced() -> (Ledgers, OffsetRange, Totals) {
        let mut ledgers = Ledgers::default();
        ledgers.offset(OffsetOutcome::Decoded, 2);
        ledgers.offset(OffsetOutcome::Rejected, 1);
        ledgers.offset(OffsetOutcome::Absent, 3);
        ledgers.object("transactions", ObjectOutcome::Emitted);
        ledgers.object("transactions", ObjectOutcome::Quarantined);
        ledgers.object("", ObjectOutcome::Filtered);
        ledgers.rows_in("transactions", RowOutcome::Passed, 10);
        ledgers.rows_in("transactions", RowOutcome::Duplicate, 1);
        ledgers.rows_in("transactions", RowOutcome::Rejected, 2);
        ledgers.rows_out("transactions", "transactions", 10);
        (ledgers, range(5, 11), Totals { objects: 3, rows_in: 13, rows_out: 10, dead_letters: 4 })
    }

    #[test]
    fn books_that_add_up_are_accepted() {
        let (ledgers, range, totals) = balanced();
        assert_eq!(ledgers.assert_balance(range, totals), Ok(()));
    }

    #[test]
    fn one_thing_more_or_less_in_any_ledger_is_refused() {
        let (ledgers, range_of, totals) = balanced();
        for changed in [
            Totals { objects: 2, ..totals },
            Totals { rows_in: 14, ..totals },
            Totals { rows_out: 11, ..totals },
            Totals { dead_letters: 3, ..totals },
        ] {
            assert!(ledgers.assert_balance(range_of, changed).is_err(), "{changed:?}");
        }
        assert!(ledgers.assert_balance(range(5, 12), totals).is_err());
        let mut lost_a_row = ledgers.clone();
        lost_a_row.rows_in("transactions", RowOutcome::Passed, 1);
        let totals = Totals { rows_in: 14, ..totals };
        assert_eq!(lost_a_row.assert_balance(range_of, totals).map_err(|error| error.ledger), Err("rows passed"));
    }

    #[test]
    fn what_was_counted_in_parts_is_what_was_counted_at_once() {
        let (whole, range, totals) = balanced();
        let mut parts = Ledgers::default();
        parts.offset(OffsetOutcome::Decoded, 2);
        parts.object("transactions", ObjectOutcome::Emitted);
        parts.rows_in("transactions", RowOutcome::Passed, 4);
        parts.rows_out("transactions", "transactions", 4);
        let mut rest = Ledgers::default();
        rest.offset(OffsetOutcome::Rejected, 1);
        rest.offset(OffsetOutcome::Absent, 3);
        rest.object("transactions", ObjectOutcome::Quarantined);
        rest.object("", ObjectOutcome::Filtered);
        rest.rows_in("transactions", RowOutcome::Passed, 6);
        rest.rows_in("transactions", RowOutcome::Duplicate, 1);
        rest.rows_in("transactions", RowOutcome::Rejected, 2);
        rest.rows_out("transactions", "transactions", 6);
        parts.append(&rest);
        assert_eq!(parts, whole);
        assert_eq!(parts.assert_balance(range, totals), Ok(()));
    }

    #[test]
    fn records_leave_out_what_did_not_happen() {
        let (mut ledgers, ..) = balanced();
        ledgers.offset(OffsetOutcome::Ignored, 0);
        let records = ledgers.records();
        assert!(records.iter().all(|record| record.count > 0));
        assert_eq!(records.iter().filter(|record| record.ledger == "offsets").count(), 3);
    }
}
