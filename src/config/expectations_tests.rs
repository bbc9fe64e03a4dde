use std::sync::Arc;

use super::super::load_texts::load_texts;
use super::*;
use crate::config::Connector;

/// A connector with this under `expectations`.
fn load(expectations: &str) -> Result<Arc<Connector>, String> {
    let text = format!(
        r#"name: orders
source: {{topic: raw-notifications, bucket: raw, prefix: orders/}}
schema:
  - {{name: order_id, type: uuid, required: true}}
  - {{name: amount, type: "decimal(12,2)"}}
  - {{name: occurred_at, type: timestamp_ms, required: true}}
staging: {{type: order, time: occurred_at, by: [date, hour]}}
expectations: {expectations}
"#
    );
    load_texts(&[("a.yaml", &text)]).map(|connectors| Arc::clone(&connectors.all[0]))
}

#[test]
fn every_expectation_is_read_with_its_stage() {
    let connector = load(
        r#"
  - {name: a, expr: "amount > 0", on_fail: reject}
  - {name: b, expr: "amount > 0", on_fail: fail, stage: after_decode}
  - {name: c, null_share: {column: amount, max: 0.05}, on_fail: warn}
  - {name: d, row_count: {last: 10, min: 0.5, max: 2}, on_fail: warn, stage: after_decode}
  - {name: e, unique: order_id, on_fail: fail, stage: after_transform}
  - {name: f, freshness: {max: 2h}, on_fail: warn}"#,
    );
    let connector = connector.unwrap_or_else(|problems| panic!("{problems}"));
    let (decode, transform, load) = (CheckStage::AfterDecode, CheckStage::AfterTransform, CheckStage::BeforeLoad);
    let expected = [
        ("a", transform, Check::Row("amount > 0".to_owned()), OnFail::Reject),
        ("b", decode, Check::Row("amount > 0".to_owned()), OnFail::Fail),
        ("c", load, Check::NullShare { column: "amount".to_owned(), max: 0.05 }, OnFail::Warn),
        ("d", decode, Check::RowCount { last: 10, min: Some(0.5), max: Some(2.0) }, OnFail::Warn),
        ("e", transform, Check::Unique(vec!["order_id".to_owned()]), OnFail::Fail),
        ("f", load, Check::Freshness { max_ms: 7_200_000 }, OnFail::Warn),
    ];
    let expected =
        expected.map(|(name, stage, check, on_fail)| Expectation { name: name.to_owned(), stage, check, on_fail });
    assert_eq!(connector.expectations, expected);
}

#[test]
fn what_cannot_be_meant_is_told_with_what_to_write() {
    for (expectation, expected) in [
        ("{name: x, on_fail: warn}", "expectation `x` asks for nothing"),
        ("{name: x, expr: 'amount > 0', unique: amount, on_fail: warn}", "expectation `x` asks for several things"),
        ("{name: x, null_share: {column: amont, max: 0.1}, on_fail: warn}", "did you mean `amount`?"),
        ("{name: x, null_share: {column: amount, max: 5}, on_fail: warn}", "`null_share.max` is 5, no share"),
        ("{name: x, row_count: {last: 3}, on_fail: warn}", "`row_count` names no bound"),
        ("{name: x, row_count: {last: 3, min: 2, max: 1}, on_fail: warn}", "no number of rows lies within"),
        ("{name: x, row_count: {last: 0, min: 1}, on_fail: warn}", "expectations[0].row_count.last"),
        ("{name: x, unique: [amont], on_fail: warn}", "there is no column `amont`"),
        ("{name: x, unique: amount, on_fail: reject}", "there is no row to drop or to reject"),
        ("{name: x, unique: amount, on_fail: warn, stage: after_decode}", "`unique` cannot be asked after decoding"),
        ("{name: x, freshness: {max: 2 hours}, on_fail: warn}", "`freshness.max` is no duration"),
        ("{name: x, freshness: {max: 2h}, on_fail: warn, stage: before_decode}", "after_decode"),
    ] {
        let problems = load(&format!("[{expectation}]")).err().unwrap_or_default();
        assert!(problems.contains(expected) && problems.contains("a.yaml:8:"), "{expectation}\n{problems}");
    }
}

#[test]
fn each_option_of_an_expectation_changes_the_revision() {
    let of = |expectation: &str| load(&format!("[{expectation}]")).unwrap().revision.clone();
    let revisions = [
        "{name: x, expr: 'amount > 0', on_fail: warn}",
        "{name: x, expr: 'amount > 0', on_fail: warn, stage: after_decode}",
        "{name: x, expr: 'amount > 0', on_fail: warn, stage: before_load}",
        "{name: x, null_share: {column: amount, max: 0.1}, on_fail: warn}",
        "{name: x, null_share: {column: amount, max: 0.2}, on_fail: warn}",
        "{name: x, row_count: {last: 3, min: 1}, on_fail: warn}",
        "{name: x, row_count: {last: 3, max: 1}, on_fail: warn}",
        "{name: x, row_count: {last: 4, max: 1}, on_fail: warn}",
        "{name: x, unique: amount, on_fail: warn}",
        "{name: x, unique: amount, on_fail: fail}",
        "{name: x, freshness: {max: 1h}, on_fail: warn}",
    ]
    .map(of);
    let mut distinct = revisions.to_vec();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), revisions.len());
    let default = of("{name: x, expr: 'amount > 0', on_fail: warn, stage: after_transform}");
    assert_eq!(default, revisions[0], "the default, written down");
}
