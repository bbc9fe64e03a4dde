//! SQL on small tables, held against what Rust makes of the same rows.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::tests::{connector, decoded, field, written};
use super::super::{TransformPlan, Transformed, apply};
use crate::config::{Connector, FieldType, NewField, SqlTransform};
use crate::types::RejectReason;

/// The connector with SQL that makes `fields`.
fn with_sql(sql: &str, fields: Vec<crate::config::Field>) -> Arc<Connector> {
    let connector = Connector::clone(&connector(Vec::new(), &[]));
    let dataset = Connector { fields, schema_revision: "made".to_owned(), ..connector.clone() };
    let transform = SqlTransform { sql: sql.to_owned(), dataset: Arc::new(dataset) };
    Arc::new(Connector { transform: Some(Arc::new(transform)), ..connector })
}

fn run(connector: &Arc<Connector>, batches: &[&[&str]]) -> Transformed {
    let plan = TransformPlan::new(connector).unwrap();
    let transformed = apply(&plan, decoded(connector, batches)).unwrap();
    for batch in &transformed.batches {
        assert_eq!(batch.schema(), connector.dataset().decoded_schema());
    }
    transformed
}

fn halves() -> Arc<Connector> {
    let sql = "SELECT half, upper(code) AS code FROM \
               (SELECT 100 / quantity AS half, id AS code FROM input WHERE paid) WHERE half > 0";
    with_sql(sql, vec![field("half", FieldType::Int64), field("code", FieldType::Utf8)])
}

#[test]
fn rows_keep_their_number_and_rows_that_are_left_out_are_filtered() {
    let rows = [
        r#"{"id":"a","quantity":10,"paid":true}"#,
        r#"{"id":"b","quantity":10,"paid":false}"#,
        r#"{"id":"c","quantity":1000,"paid":true}"#,
        r#"{"id":"d","quantity":50,"paid":true}"#,
    ];
    let made = run(&halves(), &[&rows]);
    let expected = [r#"{"half":10,"code":"A","_row":0}"#, r#"{"half":2,"code":"D","_row":3}"#];
    assert_eq!(written(&made.batches), expected);
    assert_eq!((made.filtered, made.rejects.len()), (2, 0));
}

#[test]
fn a_row_that_fails_is_found_and_its_neighbours_pass() {
    let rows: Vec<String> = (0..50)
        .map(|row| format!(r#"{{"id":"r{row}","quantity":{},"paid":true}}"#, if row == 17 { 0 } else { 5 }))
        .collect();
    let lines: Vec<&str> = rows.iter().map(String::as_str).collect();
    let made = run(&halves(), &[&lines]);
    assert_eq!(written(&made.batches).len(), 49);
    let [reject] = &made.rejects[..] else { panic!("{:?}", made.rejects) };
    assert_eq!((reject.row, reject.reason, &reject.bytes[..]), (17, RejectReason::SqlFailed, rows[17].as_bytes()));
    assert_eq!(reject.detail, "the SQL fails: a division by zero");
}

#[test]
fn a_row_that_is_left_out_cannot_fail() {
    let fields = vec![field("id", FieldType::Utf8), field("half", FieldType::Int64)];
    let connector = with_sql("SELECT id, 100 / quantity AS half FROM input WHERE id <> 'b'", fields);
    let made = run(&connector, &[&[r#"{"id":"a","quantity":5}"#, r#"{"id":"b","quantity":0}"#]]);
    assert_eq!(written(&made.batches), [r#"{"id":"a","half":20,"_row":0}"#]);
    assert_eq!((made.filtered, made.rejects.len()), (1, 0));
}

#[test]
fn a_null_where_none_may_be_rejects_its_row_alone() {
    let mut fields = vec![field("id", FieldType::Utf8)];
    fields[0].required = true;
    let connector = with_sql("SELECT nullif(id, 'b') AS id FROM input", fields);
    let made = run(&connector, &[&[r#"{"id":"a"}"#, r#"{"id":"b"}"#]]);
    assert_eq!(written(&made.batches), [r#"{"id":"a","_row":0}"#]);
    assert_eq!(made.rejects[0].detail, "the SQL gives no `id`");
}

#[test]
fn a_join_that_makes_two_rows_of_one_rejects_that_one() {
    let sql = "SELECT i.id, v.column2 AS name FROM input i JOIN (VALUES ('a', 'x'), ('b', 'y'), ('b', 'z')) v \
               ON i.id = v.column1";
    let connector = with_sql(sql, vec![field("id", FieldType::Utf8), field("name", FieldType::Utf8)]);
    let made = run(&connector, &[&[r#"{"id":"b"}"#, r#"{"id":"a"}"#, r#"{"id":"c"}"#]]);
    assert_eq!(written(&made.batches), [r#"{"id":"a","name":"x","_row":1}"#]);
    assert_eq!((made.filtered, made.rejects.len(), made.rejects[0].row), (1, 1, 0));
}

#[test]
fn what_is_rescued_comes_last_wherever_the_sql_has_it() {
    let mut whole = Connector::clone(&connector(Vec::new(), &[]));
    whole.evolution.new_field = NewField::Rescue;
    let dataset = Connector { fields: vec![field("id", FieldType::Utf8)], ..whole.clone() };
    let sql = "SELECT _rescued, id FROM input".to_owned();
    whole.transform = Some(Arc::new(SqlTransform { sql, dataset: Arc::new(dataset) }));
    let made = run(&Arc::new(whole), &[&[r#"{"id":"a","_rescued":"{\"new\":7}"}"#]]);
    assert_eq!(written(&made.batches), [r#"{"id":"a","_rescued":"{\"new\":7}","_row":0}"#]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However rows are cut into batches, each comes to what Rust's own arithmetic says.
    #[test]
    fn sql_agrees_with_an_independent_evaluation(
        rows in proptest::collection::vec((-3i32..4, any::<bool>()), 1..40),
        cut in 0usize..40,
    ) {
        let lines: Vec<String> = rows
            .iter()
            .enumerate()
            .map(|(row, (quantity, paid))| format!(r#"{{"id":"r{row}","quantity":{quantity},"paid":{paid}}}"#))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (one, other) = lines.split_at(cut.min(lines.len()));
        let batches: Vec<&[&str]> = [one, other].into_iter().filter(|part| !part.is_empty()).collect();
        let made = run(&halves(), &batches);
        let (mut passed, mut rejected) = (Vec::new(), Vec::new());
        for (row, (quantity, paid)) in rows.iter().enumerate().filter(|(_, (_, paid))| *paid) {
            let _ = paid;
            match 100_i64.checked_div(i64::from(*quantity)) {
                None => rejected.push(row as i64),
                Some(half) if half > 0 => passed.push(format!(r#"{{"half":{half},"code":"R{row}","_row":{row}}}"#)),
                Some(_) => {}
            }
        }
        prop_assert_eq!(&written(&made.batches), &passed);
        prop_assert_eq!(made.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), rejected.clone());
        prop_assert_eq!(made.filtered as usize, rows.len() - passed.len() - rejected.len());
    }
}
