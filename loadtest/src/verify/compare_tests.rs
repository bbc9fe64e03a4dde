use super::super::report::{FindingKind, VerifyReport};
use super::compare;
use crate::generate::{Dataset, Fate, Generator, Mix, Table};
use crate::ledger::Entry;
use crate::observe::{DeadLetterRow, LakeRow, Observed, WarehouseRow};

/// A ledger and a world that fits it exactly.
fn world() -> (Vec<Entry>, Observed) {
    let mix =
        Mix { dirty_share: 0.05, duplicate_share: 0.0, late_share: 0.0, base_time_ms: 1_760_000_000_000, hours: 48 };
    let mut generator = Generator::new(11, mix);
    let datasets = [Dataset::Transactions, Dataset::Events];
    let ledger: Vec<Entry> = (0..6)
        .map(|index| Entry {
            dataset: datasets[index % 2],
            place: format!("s3://raw/{index}"),
            rows: (0..100).map(|_| generator.row(datasets[index % 2]).fate).collect(),
        })
        .collect();
    let mut observed = Observed { files: 6, ..Observed::default() };
    for (index, entry) in ledger.iter().enumerate() {
        for (row, fate) in entry.rows.iter().enumerate() {
            arrive(&mut observed, entry.dataset, index as i64, row as i64, fate);
        }
    }
    (ledger, observed)
}

fn arrive(observed: &mut Observed, dataset: Dataset, offset: i64, row: i64, fate: &Fate) {
    match fate {
        Fate::Drop => {}
        Fate::Reject { reason, bytes_hash } => observed.dead_letters.push(DeadLetterRow {
            dataset: Some(dataset),
            file: format!("dead-letters/{dataset}/{offset}.parquet"),
            lineage: ("t/0".into(), offset, Some(0), Some(row)),
            reason: reason.clone(),
            bytes_hash: *bytes_hash,
        }),
        Fate::Pass(passing) => {
            observed.lake.push(LakeRow {
                dataset,
                file: format!("data/{dataset}/{offset}.parquet"),
                lineage: ("t/0".into(), offset, 0, row),
                batch: "b".into(),
                key: passing.key.clone(),
                order: passing.order,
                hash: passing.lake_hash,
            });
            observed.warehouse.push(WarehouseRow {
                table: dataset.table(),
                key: passing.key.clone(),
                hash: passing.warehouse_hash,
                inferred: false,
            });
            for (table, member) in [(Table::Users, &passing.user), (Table::Products, &passing.product)] {
                let known = |row: &WarehouseRow| row.table == table && Some(&row.key) == member.as_ref();
                if let Some(member) = member.as_ref().filter(|_| !observed.warehouse.iter().any(known)) {
                    observed.warehouse.push(WarehouseRow { table, key: member.clone(), hash: 0, inferred: true });
                }
            }
        }
    }
}

/// Breaks the world and returns what is found.
fn broken(change: impl FnOnce(&mut Observed)) -> VerifyReport {
    let (ledger, mut observed) = world();
    change(&mut observed);
    compare(&ledger, &observed)
}

fn only(report: &VerifyReport, kind: FindingKind, names: &str) {
    assert!(!report.is_clean());
    assert_eq!(report.count(kind), report.findings.len(), "{:?}", report.findings);
    assert!(report.findings.iter().all(|finding| finding.what.contains(names)), "{:?}", report.findings);
}

#[test]
fn a_world_that_fits_is_clean() {
    let report = broken(|_| {});
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.verdict(), "0 lost, 0 duplicated, 0 phantom, 0 stale, 0 misrejected");
}

#[test]
fn an_empty_ledger_is_not_clean() {
    assert!(!compare(&[], &Observed::default()).is_clean());
}

#[test]
fn a_missing_row_is_lost_wherever_it_is_missing() {
    only(&broken(|world| drop(world.lake.remove(7))), FindingKind::Lost, "not in the lake");
    only(&broken(|world| drop(world.warehouse.remove(0))), FindingKind::Lost, "not in the warehouse");
    only(&broken(|world| drop(world.dead_letters.remove(0))), FindingKind::Lost, "is no dead letter");
}

#[test]
fn a_missing_file_loses_its_rows() {
    let report = broken(|world| world.lake.retain(|row| row.file != "data/events/1.parquet"));
    only(&report, FindingKind::Lost, "s3://raw/1");
    assert!(report.findings.len() > 50);
}

#[test]
fn a_row_or_file_that_stands_twice_is_duplicated() {
    let copy = |world: &mut Observed| {
        let mut row = world.lake[3].clone();
        row.lineage.1 += 1_000;
        row.file = "data/other.parquet".into();
        world.lake.push(row);
    };
    only(&broken(copy), FindingKind::Duplicated, "data/other.parquet");
    only(&broken(|world| world.lake.push(world.lake[3].clone())), FindingKind::Duplicated, "");
    only(&broken(|world| world.warehouse.push(world.warehouse[0].clone())), FindingKind::Duplicated, "");
    only(&broken(|world| world.dead_letters.push(world.dead_letters[0].clone())), FindingKind::Duplicated, "");
}

#[test]
fn edited_content_is_stale() {
    let report = broken(|world| world.warehouse[0].hash ^= 1);
    only(&report, FindingKind::Stale, "in the warehouse");
    let report = broken(|world| world.lake[0].hash ^= 1);
    assert_eq!((report.count(FindingKind::Stale), report.count(FindingKind::Lost)), (1, 1), "{:?}", report.findings);
}

#[test]
fn a_row_of_nobody_is_a_phantom() {
    let invent = |world: &mut Observed| {
        let mut row = world.warehouse[0].clone();
        row.key = "nobody".into();
        world.warehouse.push(row);
    };
    only(&broken(invent), FindingKind::Phantom, "nobody");
}

#[test]
fn another_reason_or_a_good_row_among_dead_letters_is_misrejected() {
    only(&broken(|world| world.dead_letters[0].reason = "too_deep".into()), FindingKind::Misrejected, "too_deep");
    let good = |world: &mut Observed| {
        let mut letter = world.dead_letters[0].clone();
        letter.bytes_hash = 42;
        world.dead_letters.push(letter);
    };
    only(&broken(good), FindingKind::Misrejected, "dead letter");
}

#[test]
fn an_older_version_in_the_warehouse_is_stale() {
    let (mut ledger, observed) = world();
    let newer = ledger.iter().flat_map(|entry| &entry.rows).find_map(|fate| match fate {
        Fate::Pass(passing) if passing.order > 0 => Some(Fate::Pass(crate::generate::Passing {
            order: passing.order + 1,
            warehouse_hash: 1,
            ..passing.clone()
        })),
        _ => None,
    });
    ledger.push(Entry {
        dataset: Dataset::Transactions,
        place: "s3://raw/newer".into(),
        rows: newer.into_iter().collect(),
    });
    only(&compare(&ledger, &observed), FindingKind::Stale, "s3://raw/newer");
}
