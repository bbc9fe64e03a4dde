//! Cleaning, expectations and deduplication on small tables.

use std::collections::HashMap;
use std::io::Cursor;

use arrow::json::{LineDelimitedWriter, ReaderBuilder};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use proptest::prelude::*;

use super::*;
use crate::config::{
    Check, CleanStep, Expectation, Field, FieldType, OnFail, SourceKind, TimestampFormat, Warehouse, WarehouseTable,
};
use crate::types::{DecodedBatch, Span};

pub(super) fn field(name: &str, data_type: FieldType) -> Field {
    Field {
        name: name.to_owned(),
        data_type,
        required: false,
        formats: vec![TimestampFormat::Rfc3339],
        header: None,
        path: None,
    }
}

pub(super) fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

pub(super) fn connector(clean: Vec<CleanStep>, expectations: &[(&str, &str, OnFail)]) -> Arc<Connector> {
    let fields = vec![
        field("id", FieldType::Utf8),
        field("country", FieldType::Utf8),
        field("amount", FieldType::Decimal { precision: 12, scale: 2 }),
        field("quantity", FieldType::Int32),
        field("at", FieldType::TimestampMs),
        field("paid", FieldType::Boolean),
    ];
    let mut connector = Connector::of_objects("orders", fields, "at");
    if let SourceKind::Objects { overwrite, .. } = &mut connector.source.kind {
        *overwrite = crate::types::Overwrite::Append;
    }
    Arc::new(Connector {
        clean,
        expectations: expectations
            .iter()
            .map(|(name, expr, on_fail)| Expectation {
                name: (*name).to_owned(),
                stage: CheckStage::AfterTransform,
                check: Check::Row((*expr).to_owned()),
                on_fail: *on_fail,
            })
            .collect(),
        warehouse: Some(Warehouse {
            target: WarehouseTable::Fact("fact_orders".to_owned()),
            key: names(&["id"]),
            newer_by: Some("at".to_owned()),
            dimensions: Vec::new(),
            seal_after_hours: 6,
            index_hot: false,
            time_changes: false,
            rows: None,
            rollups: Vec::new(),
            history: Vec::new(),
        }),
        ..connector
    })
}

/// Rows from JSON lines, numbered from `first`.
pub(super) fn batch(connector: &Connector, first: i64, lines: &[&str]) -> RecordBatch {
    let numbered: Vec<String> = lines
        .iter()
        .zip(first..)
        .map(|(line, row)| {
            format!("{}{}\"_row\":{row}}}", &line[..line.len() - 1], if *line == "{}" { "" } else { "," })
        })
        .collect();
    let mut reader =
        ReaderBuilder::new(connector.decoded_schema()).build(Cursor::new(numbered.join("\n").into_bytes())).unwrap();
    reader.next().unwrap().unwrap()
}

/// As decoding would give it, each batch of its own buffer.
pub(super) fn decoded(connector: &Connector, batches: &[&[&str]]) -> Decoded {
    let mut decoded = Decoded::default();
    for lines in batches {
        let mut byte_offset = 0;
        let mut spans = Vec::new();
        for line in *lines {
            spans.push(Span { byte_offset, len: line.len() as u32 });
            byte_offset += line.len() as u64 + 1;
        }
        decoded.batches.push(DecodedBatch {
            rows: batch(connector, decoded.row_count as i64, lines),
            spans,
            unpacked: Bytes::from(lines.join("\n")),
            unpacked_offset: 0,
            header_line: Bytes::new(),
        });
        decoded.row_count += lines.len() as u64;
    }
    decoded
}

pub(super) fn written(batches: &[RecordBatch]) -> Vec<String> {
    let mut writer = LineDelimitedWriter::new(Vec::new());
    writer.write_batches(&batches.iter().collect::<Vec<_>>()).unwrap();
    writer.finish().unwrap();
    String::from_utf8(writer.into_inner()).unwrap().lines().map(str::to_owned).collect()
}

pub(super) fn transformed(connector: &Arc<Connector>, lines: &[&str]) -> Transformed {
    let plan = TransformPlan::new(connector).unwrap();
    let transformed = apply(&plan, decoded(connector, &[lines])).unwrap();
    let passed: usize = transformed.batches.iter().map(RecordBatch::num_rows).sum();
    assert_eq!(passed + transformed.filtered as usize + transformed.rejects.len(), lines.len());
    for batch in &transformed.batches {
        assert_eq!(batch.schema(), connector.decoded_schema());
        assert!(batch.num_rows() > 0);
    }
    transformed
}

pub(super) fn concluded(connector: &Connector, result: &Transformed) -> impl Iterator<Item = CheckResult> {
    conclude(connector, &result.tallies, Measures { announced_ms: 0, history: &|_| Vec::new() }).into_iter()
}

#[test]
fn trim_cuts_unicode_white_space_at_both_ends() {
    let connector = connector(vec![CleanStep::Trim(names(&["id", "country"]))], &[]);
    let result = transformed(
        &connector,
        &[
            r#"{"id":" \t a b\n","country":"DE"}"#,
            r#"{"id":"\u00a0\u2003x\u3000","country":"DE"}"#,
            r#"{"id":"   "}"#,
            r#"{"id":"ü"}"#,
        ],
    );
    assert_eq!(
        written(&result.batches),
        [
            r#"{"id":"a b","country":"DE","_row":0}"#,
            r#"{"id":"x","country":"DE","_row":1}"#,
            r#"{"id":"","_row":2}"#,
            r#"{"id":"ü","_row":3}"#,
        ]
    );
}

#[test]
fn case_follows_unicode() {
    let steps = vec![CleanStep::Lowercase(names(&["id"])), CleanStep::Uppercase(names(&["country"]))];
    let connector = connector(steps, &[]);
    for (lines, expected) in [
        ([r#"{"id":"ABC","country":"de"}"#, "{}"], [r#"{"id":"abc","country":"DE","_row":0}"#, r#"{"_row":1}"#]),
        (
            [r#"{"id":"ÄBC","country":"straße"}"#, "{}"],
            [r#"{"id":"äbc","country":"STRASSE","_row":0}"#, r#"{"_row":1}"#],
        ),
        ([r#"{"id":"abc","country":"DE"}"#, "{}"], [r#"{"id":"abc","country":"DE","_row":0}"#, r#"{"_row":1}"#]),
    ] {
        assert_eq!(written(&transformed(&connector, &lines).batches), expected);
    }
}

#[test]
fn defaults_stand_in_for_null_and_for_empty_text() {
    let values = [
        ("country", "unknown"),
        ("amount", "0.10"),
        ("quantity", "-1"),
        ("paid", "false"),
        ("at", "2026-11-23T00:00:00Z"),
    ];
    let defaults = CleanStep::Default(values.map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec());
    let connector = connector(vec![CleanStep::Trim(names(&["country"])), defaults], &[]);
    let result = transformed(
        &connector,
        &[
            "{}",
            r#"{"country":" "}"#,
            r#"{"country":"DE","amount":7,"quantity":2,"at":"2026-01-01T00:00:00Z","paid":true}"#,
        ],
    );
    let filled = r#""amount":0.10,"quantity":-1,"at":"2026-11-23T00:00:00Z","paid":false"#;
    assert_eq!(
        written(&result.batches),
        [
            format!(r#"{{"country":"unknown",{filled},"_row":0}}"#),
            format!(r#"{{"country":"unknown",{filled},"_row":1}}"#),
            r#"{"country":"DE","amount":7.00,"quantity":2,"at":"2026-01-01T00:00:00Z","paid":true,"_row":2}"#
                .to_owned(),
        ]
    );
}

#[test]
fn steps_run_in_the_order_in_which_they_stand() {
    let default = || CleanStep::Default(vec![("country".to_owned(), " x ".to_owned())]);
    let trim = || CleanStep::Trim(names(&["country"]));
    let line = [r#"{"country":"  "}"#];
    let result = transformed(&connector(vec![default(), trim()], &[]), &line);
    assert_eq!(written(&result.batches), [r#"{"country":"","_row":0}"#]);
    let result = transformed(&connector(vec![trim(), default(), trim()], &[]), &line);
    assert_eq!(written(&result.batches), [r#"{"country":"x","_row":0}"#]);
}

#[test]
fn a_column_that_needs_no_cleaning_is_not_copied() {
    let steps = vec![
        CleanStep::Trim(names(&["id"])),
        CleanStep::Lowercase(names(&["id"])),
        CleanStep::Default(vec![("id".to_owned(), "x".to_owned())]),
    ];
    let connector = connector(steps, &[]);
    let input = decoded(&connector, &[&[r#"{"id":"a"}"#, r#"{"id":"b"}"#]]);
    let before = Arc::clone(input.batches[0].rows.column(0));
    let after = apply(&TransformPlan::new(&connector).unwrap(), input).unwrap();
    assert!(Arc::ptr_eq(&before, after.batches[0].column(0)));
}

#[test]
fn a_row_that_an_expectation_overflows_for_fails_it_and_its_neighbours_do_not() {
    let connector = connector(vec![], &[("few", "quantity * 1073741824 <= 1073741824", OnFail::Reject)]);
    let lines = [r#"{"quantity":1}"#, r#"{"quantity":4}"#, r#"{"quantity":-1}"#, r#"{"quantity":2147483647}"#];
    let result = transformed(&connector, &lines);
    assert_eq!(written(&result.batches), [r#"{"quantity":1,"_row":0}"#, r#"{"quantity":-1,"_row":2}"#]);
    assert_eq!(result.rejects.len(), 2);
}

#[test]
fn the_first_expectation_that_rejects_or_drops_decides() {
    let connector = connector(
        vec![CleanStep::Uppercase(names(&["country"]))],
        &[
            ("quantity_known", "quantity IS NOT NULL", OnFail::Warn),
            ("amount_positive", "amount > 0", OnFail::Reject),
            ("not_test", "country <> 'XX'", OnFail::Drop),
            ("quantity_sane", "quantity IS NULL OR quantity BETWEEN 1 AND 10", OnFail::Reject),
        ],
    );
    let lines = [
        r#"{"amount":1,"country":"de","quantity":1}"#,
        r#"{"amount":0,"country":"xx","quantity":99}"#,
        r#"{"amount":1,"country":"xx","quantity":99}"#,
        r#"{"amount":1,"country":"de","quantity":99}"#,
        r#"{"country":"de","quantity":1}"#,
        r#"{"amount":0.01,"country":"de"}"#,
        r#"{"amount":1}"#,
    ];
    let result = transformed(&connector, &lines);
    assert_eq!(
        written(&result.batches),
        [r#"{"country":"DE","amount":1.00,"quantity":1,"_row":0}"#, r#"{"country":"DE","amount":0.01,"_row":5}"#,]
    );
    assert_eq!(result.filtered, 2);
    let rejects: Vec<_> =
        result.rejects.iter().map(|reject| (reject.row, reject.detail.as_str(), &reject.bytes[..])).collect();
    let amount = "expectation `amount_positive` failed: amount > 0";
    let quantity = "expectation `quantity_sane` failed: quantity IS NULL OR quantity BETWEEN 1 AND 10";
    assert_eq!(
        rejects,
        [(1, amount, lines[1].as_bytes()), (3, quantity, lines[3].as_bytes()), (4, amount, lines[4].as_bytes()),]
    );
    assert!(result.rejects.iter().all(|reject| reject.reason == RejectReason::ExpectationFailed));
    let seen: Vec<_> =
        concluded(&connector, &result).map(|seen| (seen.name, seen.rows_checked, seen.rows_failed)).collect();
    let expected = [("quantity_known", 7, 2), ("amount_positive", 7, 2), ("not_test", 5, 2), ("quantity_sane", 3, 1)];
    assert_eq!(seen, expected.map(|(name, checked, failed)| (name.to_owned(), checked, failed)));
}

#[test]
fn a_row_that_cannot_be_evaluated_fails_alone() {
    let connector = connector(Vec::new(), &[("ratio", "10 / quantity > 1", OnFail::Reject)]);
    let result = transformed(&connector, &[r#"{"quantity":5}"#, r#"{"quantity":0}"#, r#"{"quantity":4}"#, "{}"]);
    assert_eq!(written(&result.batches), [r#"{"quantity":5,"_row":0}"#, r#"{"quantity":4,"_row":2}"#]);
    assert_eq!(result.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [1, 3]);
}

#[test]
fn rejects_of_decoding_and_of_expectations_are_one_list_in_row_order() {
    let connector = connector(Vec::new(), &[("paid", "paid", OnFail::Reject)]);
    let mut input = decoded(&connector, &[&[r#"{"paid":true}"#, r#"{"paid":false}"#], &[r#"{"paid":false}"#]]);
    let reject = RowReject {
        row: 7,
        byte_offset: 70,
        reason: RejectReason::MalformedJson,
        detail: String::new(),
        bytes: Bytes::new(),
    };
    input.rejects = vec![RowReject { row: -1, ..reject.clone() }, reject];
    let result = apply(&TransformPlan::new(&connector).unwrap(), input).unwrap();
    assert_eq!(result.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), [-1, 1, 2, 7]);
    assert_eq!(result.batches.len(), 1);
}

#[test]
fn a_wrong_expectation_is_named_when_it_is_planned() {
    for expr in ["amount >", "no_such_column = 1", "_row > 1", "amount + 1"] {
        let connector = connector(Vec::new(), &[("broken", expr, OnFail::Reject)]);
        let error = TransformPlan::new(&connector).unwrap_err();
        assert_eq!(error.to_string(), "could not plan expectation `broken` of connector `orders`");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

pub(super) fn origin(message_offset: i64, time_ms: i64, order_hash: i64) -> Origin {
    Origin { message_offset, record: 0, time: DateTime::<Utc>::from_timestamp_millis(time_ms).unwrap(), order_hash }
}

fn by_id() -> Arc<Connector> {
    connector(vec![CleanStep::Dedupe(names(&["id"]))], &[])
}

/// Rows that stay, as (offset, row).
fn staying(connector: &Connector, rows: Vec<OriginRows>) -> (Vec<(i64, i64)>, u64) {
    let total: usize = rows.iter().flat_map(|rows| &rows.batches).map(RecordBatch::num_rows).sum();
    let (rows, dropped) = dedupe(connector, rows).unwrap();
    let mut staying = Vec::new();
    for rows in &rows {
        for batch in &rows.batches {
            assert_eq!(batch.schema(), connector.decoded_schema());
            let numbers = batch.columns().last().unwrap();
            let numbers = numbers.as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
            staying.extend(numbers.values().iter().map(|row| (rows.origin.message_offset, *row)));
        }
    }
    assert_eq!(staying.len() + dropped as usize, total);
    (staying, dropped)
}

#[test]
fn the_newest_row_of_a_key_stays() {
    let connector = by_id();
    let rows = |origin: Origin, lines: &[&str]| OriginRows { origin, batches: vec![batch(&connector, 0, lines)] };
    let at = |second: u32| format!(r#"{{"id":"a","at":"2026-11-23T00:00:{second:02}Z"}}"#);
    let none = r#"{"id":"a"}"#;
    // 2026-11-23T00:00:30Z
    let object_time = 1_795_392_030_000;
    for (name, rows, expected) in [
        ("newer_by first", vec![rows(origin(1, 9, 9), &[&at(2)]), rows(origin(2, 1, 1), &[&at(3)])], (2, 0)),
        ("then the object's time", vec![rows(origin(1, 9, 1), &[&at(2)]), rows(origin(2, 1, 9), &[&at(2)])], (1, 0)),
        ("then the order hash", vec![rows(origin(1, 5, -1), &[&at(2)]), rows(origin(2, 5, -9), &[&at(2)])], (1, 0)),
        ("then the row", vec![rows(origin(1, 5, 5), &[&at(2), &at(1), &at(2)])], (1, 2)),
        ("null: the object's time", vec![rows(origin(1, object_time, 5), &[&at(29), none, &at(31)])], (1, 2)),
        ("null wins over older", vec![rows(origin(1, object_time, 5), &[&at(29), none])], (1, 1)),
    ] {
        let mut reversed = rows.clone();
        reversed.reverse();
        assert_eq!(staying(&connector, rows).0, [expected], "{name}");
        assert_eq!(staying(&connector, reversed).0, [expected], "{name}");
    }
}

#[test]
fn keys_are_compared_by_value_and_null_equals_nothing() {
    let connector = connector(vec![CleanStep::Dedupe(names(&["id", "quantity"]))], &[]);
    let lines = [
        r#"{"id":"a","quantity":1}"#,
        r#"{"id":"a","quantity":2}"#,
        r#"{"id":"a","quantity":1}"#,
        r#"{"id":"a"}"#,
        r#"{"id":"a"}"#,
        r#"{"quantity":1}"#,
        r#"{"quantity":1}"#,
        r#"{"id":"A","quantity":1}"#,
    ];
    let rows = vec![OriginRows { origin: origin(1, 1, 1), batches: vec![batch(&connector, 0, &lines)] }];
    let (staying, dropped) = staying(&connector, rows);
    assert_eq!(staying.iter().map(|(_, row)| *row).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(dropped, 1);
}

/// The other object may be hidden afterwards, and the row with it.
#[test]
fn where_versions_replace_each_other_rows_of_other_objects_are_left_alone() {
    let mut connector = Arc::unwrap_or_clone(by_id());
    let SourceKind::Objects { overwrite, .. } = &mut connector.source.kind else { unreachable!("by_id reads objects") };
    *overwrite = crate::types::Overwrite::Replace;
    let connector = Arc::new(connector);
    let lines = [r#"{"id":"a"}"#, r#"{"id":"b"}"#, r#"{"id":"a"}"#];
    let rows = |offset| OriginRows { origin: origin(offset, offset, 1), batches: vec![batch(&connector, 0, &lines)] };
    assert_eq!(staying(&connector, vec![rows(1), rows(2)]), (vec![(1, 1), (1, 2), (2, 1), (2, 2)], 2));
}

#[test]
fn without_a_dedupe_step_every_row_stays() {
    let connector = connector(Vec::new(), &[]);
    let lines = [r#"{"id":"a"}"#, r#"{"id":"a"}"#];
    let rows = vec![OriginRows { origin: origin(1, 1, 1), batches: vec![batch(&connector, 0, &lines)] }];
    assert_eq!(staying(&connector, rows), (vec![(1, 0), (1, 1)], 0));
    assert_eq!(staying(&by_id(), Vec::new()), (Vec::new(), 0));
}

proptest! {
    /// However rows are cut into origins' batches and in whatever order these come, the same rows stay.
    #[test]
    fn what_stays_depends_on_the_rows_alone(
        origins in prop::collection::vec(
            (0..4_i64, prop::collection::vec((0..5_u8, prop::option::of(0..4_u8)), 1..12), 1..12_usize),
            1..6,
        ),
        rotation in 0..6_usize,
    ) {
        let connector = by_id();
        let mut expected: HashMap<u8, ((i64, i64, i64), (i64, i64))> = HashMap::new();
        let mut whole = Vec::new();
        let mut cut = Vec::new();
        for (offset, (time, rows, size)) in origins.iter().enumerate() {
            let offset = offset as i64;
            let lines: Vec<String> = rows.iter().map(|(id, at)| match at {
                Some(at) => format!(r#"{{"id":"{id}","at":"1970-01-01T00:00:00.{at:03}Z"}}"#),
                None => format!(r#"{{"id":"{id}"}}"#),
            }).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let origin = origin(offset, *time, offset);
            for (row, (id, at)) in rows.iter().enumerate() {
                let age = (at.map_or(*time, i64::from), *time, offset);
                let candidate = (age, (offset, row as i64));
                expected.entry(*id).and_modify(|best| *best = (*best).max(candidate)).or_insert(candidate);
            }
            whole.push(OriginRows { origin: origin.clone(), batches: vec![batch(&connector, 0, &lines)] });
            let batches = lines.chunks(*size).enumerate().map(|(n, lines)| batch(&connector, (n * size) as i64, lines));
            cut.push(OriginRows { origin, batches: batches.collect() });
        }
        cut.rotate_left(rotation % origins.len());
        let mut expected: Vec<(i64, i64)> = expected.into_values().map(|(_, row)| row).collect();
        expected.sort_unstable();
        for rows in [whole, cut] {
            let mut staying = staying(&connector, rows).0;
            staying.sort_unstable();
            prop_assert_eq!(&staying, &expected);
        }
    }
}
