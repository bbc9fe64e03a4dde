//! The comparison: pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::report::{FindingKind, VerifyReport};
use crate::generate::{Dataset, Fate, Passing, Table};
use crate::ledger::Entry;
use crate::observe::{DeadLetterRow, LakeRow, Observed, WarehouseRow};

/// A row that was produced, by the place it was written to.
struct Produced<'a> {
    passing: &'a Passing,
    place: &'a str,
    row: usize,
}

impl Produced<'_> {
    fn name(&self) -> String {
        format!("key {} (row {} of {})", self.passing.key, self.row, self.place)
    }
}

/// Compares ledger and observation.
pub fn compare(ledger: &[Entry], observed: &Observed) -> VerifyReport {
    let mut report = VerifyReport { files: observed.files, objects: ledger.len(), ..VerifyReport::default() };
    count(ledger, observed, &mut report);
    for dataset in Dataset::ALL {
        compare_lake(*dataset, ledger, &observed.lake, &mut report);
        compare_dead_letters(*dataset, ledger, observed, &mut report);
    }
    let strangers = observed.dead_letters.iter().filter(|letter| letter.dataset.is_none());
    for letter in strangers {
        report.find(FindingKind::Phantom, format!("dead letter {} in {}", letter.reason, letter.file));
    }
    compare_lineage(&observed.lake, &mut report);
    for table in [Table::Transactions, Table::Events] {
        compare_facts(table, ledger, &observed.warehouse, &mut report);
    }
    for table in [Table::Users, Table::Products] {
        compare_members(table, ledger, &observed.warehouse, &mut report);
    }
    report
}

fn count(ledger: &[Entry], observed: &Observed, report: &mut VerifyReport) {
    for fate in ledger.iter().flat_map(|entry| &entry.rows) {
        report.rows += 1;
        match fate {
            Fate::Pass(_) => report.rows_passing += 1,
            Fate::Drop => report.rows_dropped += 1,
            Fate::Reject { .. } => {}
        }
    }
    report.rows_staged = observed.lake.len() as u64;
    report.rows_loaded = observed.warehouse.len() as u64;
    for letter in &observed.dead_letters {
        *report.dead_letters.entry(letter.reason.clone()).or_insert(0) += 1;
    }
}

fn produced<'a>(ledger: &'a [Entry], wants: impl Fn(Dataset) -> bool) -> HashMap<&'a str, Vec<Produced<'a>>> {
    let mut by_key: HashMap<&str, Vec<Produced<'_>>> = HashMap::new();
    for entry in ledger.iter().filter(|entry| wants(entry.dataset)) {
        for (row, fate) in entry.rows.iter().enumerate() {
            if let Fate::Pass(passing) = fate {
                by_key.entry(&passing.key).or_default().push(Produced { passing, place: &entry.place, row });
            }
        }
    }
    by_key
}

/// The newest row of a key; equal ones are copies.
fn newest<'a, 'b>(rows: &'b [Produced<'a>]) -> Option<&'b Produced<'a>> {
    rows.iter().max_by_key(|row| row.passing.order)
}

fn compare_lake(dataset: Dataset, ledger: &[Entry], lake: &[LakeRow], report: &mut VerifyReport) {
    let expected = produced(ledger, |other| other == dataset);
    let mut found: HashMap<&str, Vec<&LakeRow>> = HashMap::new();
    for row in lake.iter().filter(|row| row.dataset == dataset) {
        found.entry(&row.key).or_default().push(row);
    }
    for (key, rows) in &found {
        let Some(wanted) = expected.get(key) else {
            for row in rows {
                report.find(FindingKind::Phantom, format!("{dataset} key {key} in {}", row.file));
            }
            continue;
        };
        let mut allowed: HashMap<u128, usize> = HashMap::new();
        for row in wanted {
            *allowed.entry(row.passing.lake_hash).or_insert(0) += 1;
        }
        for row in rows {
            match allowed.get_mut(&row.hash) {
                None => {
                    report.find(FindingKind::Stale, format!("{dataset} key {key} in {} has other content", row.file))
                }
                Some(0) => report.find(FindingKind::Duplicated, format!("{dataset} key {key} in {}", row.file)),
                Some(left) => *left -= 1,
            }
        }
    }
    for (key, rows) in &expected {
        let Some(newest) = newest(rows) else { continue };
        let there = found.get(key).is_some_and(|found| found.iter().any(|row| row.hash == newest.passing.lake_hash));
        if !there {
            report.find(FindingKind::Lost, format!("{dataset} {} is not in the lake", newest.name()));
        }
    }
}

/// One origin stands once in the whole lake.
fn compare_lineage(lake: &[LakeRow], report: &mut VerifyReport) {
    let mut seen = HashMap::new();
    for row in lake {
        if let Some(other) = seen.insert(&row.lineage, &row.file) {
            let what = format!("origin {:?} stands in {other} and in {}", row.lineage, row.file);
            report.find(FindingKind::Duplicated, what);
        }
    }
}

fn compare_dead_letters(dataset: Dataset, ledger: &[Entry], observed: &Observed, report: &mut VerifyReport) {
    let mut expected: BTreeMap<u128, Vec<(&str, String)>> = BTreeMap::new();
    for entry in ledger.iter().filter(|entry| entry.dataset == dataset) {
        for (row, fate) in entry.rows.iter().enumerate() {
            if let Fate::Reject { reason, bytes_hash } = fate {
                expected.entry(*bytes_hash).or_default().push((reason, format!("row {row} of {}", entry.place)));
            }
        }
    }
    let letters: Vec<&DeadLetterRow> =
        observed.dead_letters.iter().filter(|letter| letter.dataset == Some(dataset)).collect();
    let mut known: BTreeSet<u128> = BTreeSet::new();
    for letter in letters {
        let Some(wanted) = expected.get_mut(&letter.bytes_hash) else {
            let what = format!("dead letter {} ({:?}) in {}", letter.reason, letter.lineage, letter.file);
            // bytes of a good row and bytes of nobody look alike from here: both were wrongly rejected
            report.find(FindingKind::Misrejected, what);
            continue;
        };
        known.insert(letter.bytes_hash);
        match wanted.iter().position(|(reason, _)| *reason == letter.reason) {
            Some(index) => drop(wanted.swap_remove(index)),
            None if wanted.is_empty() => {
                report.find(FindingKind::Duplicated, format!("dead letter {} in {}", letter.reason, letter.file));
            }
            None => {
                let (reason, place) = wanted.swap_remove(0);
                report.find(FindingKind::Misrejected, format!("{place}: {} instead of {reason}", letter.reason));
            }
        }
    }
    for (reason, place) in expected.into_values().flatten() {
        report.find(FindingKind::Lost, format!("{dataset} {place} is no dead letter ({reason})"));
    }
}

fn compare_facts(table: Table, ledger: &[Entry], warehouse: &[WarehouseRow], report: &mut VerifyReport) {
    let expected = produced(ledger, |dataset| dataset.table() == table);
    let mut seen: HashSet<&str> = HashSet::new();
    for row in warehouse.iter().filter(|row| row.table == table) {
        let Some(newest) = expected.get(row.key.as_str()).and_then(|rows| newest(rows)) else {
            report.find(FindingKind::Phantom, format!("{table:?} key {} in the warehouse", row.key));
            continue;
        };
        if !seen.insert(&row.key) {
            report.find(FindingKind::Duplicated, format!("{table:?} key {} in the warehouse", row.key));
        } else if row.hash != newest.passing.warehouse_hash {
            report.find(FindingKind::Stale, format!("{table:?} {} in the warehouse", newest.name()));
        }
    }
    for rows in expected.values() {
        if let Some(newest) = newest(rows).filter(|newest| !seen.contains(newest.passing.key.as_str())) {
            report.find(FindingKind::Lost, format!("{table:?} {} is not in the warehouse", newest.name()));
        }
    }
}

fn compare_members(table: Table, ledger: &[Entry], warehouse: &[WarehouseRow], report: &mut VerifyReport) {
    let expected = produced(ledger, |dataset| dataset.table() == table);
    let facts = produced(ledger, |dataset| matches!(dataset.table(), Table::Transactions | Table::Events));
    let member = |passing: &Passing| if table == Table::Users { passing.user.clone() } else { passing.product.clone() };
    // the newest rows are loaded for certain; older ones may have been dropped before
    let named: HashSet<String> = facts.values().flatten().filter_map(|row| member(row.passing)).collect();
    let must: HashSet<String> =
        facts.values().filter_map(|rows| newest(rows)).filter_map(|row| member(row.passing)).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    for row in warehouse.iter().filter(|row| row.table == table) {
        let what = format!("{table:?} member {} in the warehouse", row.key);
        let newest = expected.get(row.key.as_str()).and_then(|rows| newest(rows));
        if !seen.insert(&row.key) {
            report.find(FindingKind::Duplicated, what);
            continue;
        }
        match newest {
            Some(newest) if row.inferred || row.hash != newest.passing.warehouse_hash => {
                report.find(FindingKind::Stale, what);
            }
            Some(_) => {}
            None if row.inferred && named.contains(&row.key) => {}
            None => report.find(FindingKind::Phantom, what),
        }
    }
    let lost = expected.keys().copied().chain(must.iter().map(String::as_str)).collect::<BTreeSet<_>>();
    for key in lost.into_iter().filter(|key| !seen.contains(key)) {
        report.find(FindingKind::Lost, format!("{table:?} member {key} is not in the warehouse"));
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
