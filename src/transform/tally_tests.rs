//! What expectations come to, against sums made by hand or by brute force.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::{CleanStep, Connector};
use crate::transform::tests::{batch, connector, decoded, names, origin, transformed, written};
use crate::transform::{Loadable, TransformPlan, Transformed, apply, before_load, dedupe};
use crate::types::RejectReason;

fn expectation(name: &str, stage: CheckStage, check: Check, on_fail: OnFail) -> Expectation {
    Expectation { name: name.to_owned(), stage, check, on_fail }
}

fn row(sql: &str) -> Check {
    Check::Row(sql.to_owned())
}

fn expecting(clean: Vec<CleanStep>, expectations: Vec<Expectation>) -> Arc<Connector> {
    let mut connector = Arc::unwrap_or_clone(connector(clean, &[]));
    connector.expectations = expectations;
    Arc::new(connector)
}

fn measured(connector: &Connector, tallies: &Tallies, announced_ms: i64, history: &[i64]) -> Vec<CheckResult> {
    conclude(connector, tallies, Measures { announced_ms, history: &|_| history.to_vec() })
}

/// Name, rows checked, rows failed, outcome.
fn outcomes(results: &[CheckResult]) -> Vec<(&str, u64, u64, &'static str)> {
    let outcome = |r: &CheckResult| r.outcome.as_str();
    results.iter().map(|r| (r.name.as_str(), r.rows_checked, r.rows_failed, outcome(r))).collect()
}

#[test]
fn each_stage_sees_the_rows_that_the_one_before_has_left() {
    let has_country = |name, stage, on_fail| expectation(name, stage, row("country IS NOT NULL"), on_fail);
    let connector = expecting(
        vec![CleanStep::Default(vec![("country".to_owned(), "XX".to_owned())])],
        vec![
            // listed last, asked first
            has_country("cleaned", CheckStage::AfterTransform, OnFail::Reject),
            has_country("raw", CheckStage::AfterDecode, OnFail::Warn),
            expectation("positive", CheckStage::AfterDecode, row("quantity > 0"), OnFail::Drop),
            expectation("known", CheckStage::AfterTransform, row("country <> 'XX'"), OnFail::Reject),
        ],
    );
    let lines = [
        r#"{"country":"DE","quantity":1}"#,
        r#"{"quantity":1}"#,
        r#"{"quantity":0}"#,
        r#"{"country":"FR","quantity":2}"#,
    ];
    let result = transformed(&connector, &lines);
    assert_eq!(
        written(&result.batches),
        [r#"{"country":"DE","quantity":1,"_row":0}"#, r#"{"country":"FR","quantity":2,"_row":3}"#]
    );
    assert_eq!(result.filtered, 1);
    let rejects: Vec<_> = result.rejects.iter().map(|reject| (reject.row, &reject.bytes[..])).collect();
    assert_eq!(rejects, [(1, lines[1].as_bytes())]);
    let results = measured(&connector, &result.tallies, 0, &[]);
    assert_eq!(
        outcomes(&results),
        [
            ("cleaned", 3, 0, "passed"),
            ("raw", 4, 2, "warned"),
            ("positive", 4, 1, "dropped"),
            ("known", 3, 1, "rejected"),
        ]
    );
}

/// Rows of one origin, through dedupe to the load.
fn loadable(connector: &Arc<Connector>, lines: &[&str], is_carried: bool) -> (Transformed, Loadable, Tallies) {
    let plan = TransformPlan::new(connector).unwrap();
    let read = apply(&plan, decoded(connector, &[lines])).unwrap();
    let rows = vec![OriginRows { origin: origin(7, 1, 1), batches: read.batches.clone() }];
    let (rows, _) = dedupe(connector, rows).unwrap();
    let mut tallies = read.tallies.clone();
    let loadable = before_load(&plan, rows, |_| is_carried, &mut tallies).unwrap();
    (read, loadable, tallies)
}

#[test]
fn before_the_load_only_rows_that_dedupe_has_left_are_asked() {
    let connector = expecting(
        vec![CleanStep::Dedupe(names(&["id"]))],
        vec![
            expectation("few", CheckStage::BeforeLoad, row("quantity < 10"), OnFail::Reject),
            expectation("paid", CheckStage::BeforeLoad, row("paid IS NULL OR paid"), OnFail::Drop),
        ],
    );
    let at = |second: u8| format!(r#""at":"2026-11-23T00:00:0{second}Z""#);
    let lines = [
        format!(r#"{{"id":"a","quantity":99,{}}}"#, at(1)),
        format!(r#"{{"id":"a","quantity":1,{}}}"#, at(2)),
        format!(r#"{{"id":"b","quantity":1,{}}}"#, at(1)),
        format!(r#"{{"id":"b","quantity":99,{}}}"#, at(2)),
        format!(r#"{{"id":"c","quantity":1,"paid":false,{}}}"#, at(1)),
    ];
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let (read, loaded, tallies) = loadable(&connector, &lines, false);
    assert!(read.rejects.is_empty(), "nothing is rejected before dedupe");
    let batches: Vec<_> = loaded.rows.into_iter().flat_map(|rows| rows.batches).collect();
    let left: Vec<String> = written(&batches).iter().map(|row| row[..9].to_owned()).collect();
    assert_eq!(left, [r#"{"id":"a""#], "the older row of b does not come back");
    assert_eq!((loaded.filtered, loaded.rejected), (1, vec![(7, 0, 3)]));
    let held: Vec<_> = read.held.iter().map(|held| (held.row, held.reason, &held.bytes[..])).collect();
    let failed = RejectReason::ExpectationFailed;
    assert_eq!(held, [(0, failed, lines[0].as_bytes()), (3, failed, lines[3].as_bytes())]);
    let results = measured(&connector, &tallies, 0, &[]);
    assert_eq!(outcomes(&results), [("few", 3, 1, "rejected"), ("paid", 2, 1, "dropped")]);
}

#[test]
fn rows_that_are_carried_over_stand() {
    let reject = expectation("few", CheckStage::BeforeLoad, row("quantity < 10"), OnFail::Reject);
    let share = Check::NullShare { column: "country".to_owned(), max: 0.0 };
    let connector =
        expecting(Vec::new(), vec![reject, expectation("full", CheckStage::BeforeLoad, share, OnFail::Warn)]);
    let (_, loaded, tallies) = loadable(&connector, &[r#"{"quantity":99}"#], true);
    assert_eq!((loaded.rows[0].batches.len(), loaded.filtered, loaded.rejected.len()), (1, 0, 0));
    assert_eq!(outcomes(&measured(&connector, &tallies, 0, &[])), [("full", 1, 1, "warned")], "but they are there");
}

#[test]
fn a_share_of_nulls_is_taken_of_all_rows_at_its_stage() {
    let share = |name, stage, max| {
        expectation(name, stage, Check::NullShare { column: "country".to_owned(), max }, OnFail::Fail)
    };
    let connector = expecting(
        vec![CleanStep::Default(vec![("country".to_owned(), "XX".to_owned())])],
        vec![
            share("half", CheckStage::AfterDecode, 0.5),
            share("less", CheckStage::AfterDecode, 0.49),
            share("none", CheckStage::AfterTransform, 0.0),
        ],
    );
    let result = transformed(&connector, &["{}", r#"{"country":"DE"}"#, "{}", r#"{"country":"FR"}"#]);
    let results = measured(&connector, &result.tallies, 0, &[]);
    assert_eq!(outcomes(&results), [("half", 4, 2, "passed"), ("less", 4, 2, "failed"), ("none", 4, 0, "passed")]);
    assert_eq!(results.iter().map(|result| result.value).collect::<Vec<_>>(), [Some(0.5), Some(0.5), Some(0.0)]);
    assert_eq!(results[1].reason(), "expectation `less` failed, measured 0.500 of 4 rows");
    assert_eq!(result.failed, None, "only rows stop an object by themselves");
}

#[test]
fn a_row_count_is_measured_by_enough_of_what_came_before() {
    let count = Check::RowCount { last: 3, min: Some(0.5), max: Some(1.5) };
    let connector = expecting(Vec::new(), vec![expectation("volume", CheckStage::AfterDecode, count, OnFail::Warn)]);
    let result = transformed(&connector, &["{}", "{}", "{}"]);
    for (history, value, outcome) in [
        (&[][..], None, "passed"),
        (&[900, 900], None, "passed"),
        (&[3, 3, 3], Some(1.0), "passed"),
        (&[6, 6, 6], Some(0.5), "passed"),
        (&[7, 6, 6], Some(9.0 / 19.0), "warned"),
        (&[1, 2, 2], Some(9.0 / 5.0), "warned"),
    ] {
        let results = measured(&connector, &result.tallies, 0, history);
        assert_eq!((results[0].value, results[0].outcome.as_str()), (value, outcome), "{history:?}");
    }
}

#[test]
fn freshness_asks_the_announcement_and_no_clock() {
    let fresh = Check::Freshness { max_ms: 1_500 };
    let connector = expecting(Vec::new(), vec![expectation("fresh", CheckStage::AfterTransform, fresh, OnFail::Warn)]);
    let old = r#"{"at":"1970-01-01T00:00:01Z"}"#;
    let newest = r#"{"at":"1970-01-01T00:00:10Z"}"#;
    let result = transformed(&connector, &[old, newest, "{}"]);
    for (announced_ms, behind_s, outcome) in
        [(11_500, 1.5, "passed"), (11_501, 1.501, "warned"), (9_000, -1.0, "passed")]
    {
        let results = measured(&connector, &result.tallies, announced_ms, &[]);
        assert_eq!((results[0].value, results[0].outcome.as_str()), (Some(behind_s), outcome));
    }
    let timeless = transformed(&connector, &["{}"]);
    let results = measured(&connector, &timeless.tallies, 0, &[]);
    assert_eq!((results[0].value, results[0].outcome.as_str()), (None, "warned"), "nothing fresh is there");
}

#[test]
fn an_expectation_that_is_asked_of_nothing_comes_to_nothing() {
    let all = [CheckStage::AfterDecode, CheckStage::AfterTransform, CheckStage::BeforeLoad];
    let all = all.map(|stage| expectation(stage.as_str(), stage, row("paid"), OnFail::Fail));
    let connector = expecting(Vec::new(), all.to_vec());
    assert_eq!(measured(&connector, &Tallies::of(&connector), 0, &[]), []);
}

proptest! {
    /// However rows are cut into origins, as many are too many as brute force finds.
    #[test]
    fn repeated_keys_are_found_across_origins(
        rows in prop::collection::vec((prop::option::of(0..4_u8), prop::option::of(0..3_i32)), 1..30),
        size in 1..8_usize,
    ) {
        let unique = Check::Unique(names(&["id", "quantity"]));
        let connector = expecting(Vec::new(), vec![expectation("u", CheckStage::AfterTransform, unique, OnFail::Warn)]);
        let lines: Vec<String> = rows.iter().map(|(id, quantity)| {
            serde_json::json!({ "id": id.map(|id| id.to_string()), "quantity": quantity }).to_string()
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let origins: Vec<OriginRows> = lines.chunks(size).enumerate().map(|(n, lines)| OriginRows {
            origin: origin(n as i64, 1, 1),
            batches: vec![batch(&connector, 0, lines)],
        }).collect();
        let mut tallies = Tallies::of(&connector);
        tallies.observe_all(&connector, CheckStage::AfterTransform, &origins).unwrap();
        let keys: Vec<(u8, i32)> = rows.iter().filter_map(|(id, quantity)| Some((id.as_ref().copied()?, (*quantity)?))).collect();
        let distinct: HashSet<_> = keys.iter().collect();
        let expected = Tally { checked: rows.len() as u64, failed: (keys.len() - distinct.len()) as u64, newest_ms: None };
        prop_assert_eq!(tallies.0[0], expected);
    }

    /// However rows are cut into record batches and objects, the tallies add up to the same.
    #[test]
    fn tallies_do_not_depend_on_the_cut(
        rows in prop::collection::vec((prop::option::of(0..3_i32), prop::option::of(0..9_u8)), 1..30),
        size in 1..8_usize,
        at in 0..30_usize,
    ) {
        let share = Check::NullShare { column: "quantity".to_owned(), max: 0.1 };
        let connector = expecting(Vec::new(), vec![
            expectation("drop", CheckStage::AfterDecode, row("quantity IS NULL OR quantity < 2"), OnFail::Drop),
            expectation("share", CheckStage::AfterDecode, share, OnFail::Warn),
            expectation("warn", CheckStage::AfterTransform, row("quantity = 0"), OnFail::Warn),
            expectation("fresh", CheckStage::AfterTransform, Check::Freshness { max_ms: 1 }, OnFail::Warn),
        ]);
        let lines: Vec<String> = rows.iter().map(|(quantity, second)| match second {
            Some(second) => format!(r#"{{"quantity":{},"at":"1970-01-01T00:00:0{second}Z"}}"#, serde_json::json!(quantity)),
            None => format!(r#"{{"quantity":{}}}"#, serde_json::json!(quantity)),
        }).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let plan = TransformPlan::new(&connector).unwrap();
        let tallies = |batches: &[&[&str]]| apply(&plan, decoded(&connector, batches)).unwrap().tallies;
        let whole = tallies(&[&lines]);
        prop_assert_eq!(&tallies(&lines.chunks(size).collect::<Vec<_>>()), &whole);
        let (left, right) = lines.split_at(at.min(lines.len() - 1));
        let mut summed = Tallies::default();
        for part in [left, right].into_iter().filter(|part| !part.is_empty()) {
            summed.append(&tallies(&[part]));
        }
        prop_assert_eq!(summed, whole);
    }
}
