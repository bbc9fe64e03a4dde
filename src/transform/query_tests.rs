//! SQL on small tables, held against what Rust makes of the same rows.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::tests::{connector, decoded, field, written};
use super::super::{TransformPlan, Transformed, apply};
use crate::config::{Connector, FieldType, JoinTable, NewField, SqlTransform, TableRows, TimestampFormat};
use crate::types::RejectReason;

/// The connector with SQL that makes `fields`.
fn with_sql(sql: &str, fields: Vec<crate::config::Field>) -> Arc<Connector> {
    let connector = Connector::clone(&connector(Vec::new(), &[]));
    let dataset = Connector { fields, schema_revision: "made".to_owned(), ..connector.clone() };
    let transform = SqlTransform { sql: sql.to_owned(), tables: Vec::new(), dataset: Arc::new(dataset) };
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
    whole.transform = Some(Arc::new(SqlTransform { sql, tables: Vec::new(), dataset: Arc::new(dataset) }));
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

/// A table as of a file, by the texts of its rows.
fn table(name: &str, columns: &[(&str, FieldType)], rows: &[Vec<Option<String>>]) -> Arc<JoinTable> {
    let columns: Vec<_> = columns
        .iter()
        .map(|(name, data_type)| {
            let mut column = field(name, *data_type);
            column.formats = vec![TimestampFormat::EpochMs];
            column
        })
        .collect();
    let empty = JoinTable::of_dimension(name.to_owned(), columns.clone(), name.to_owned(), Duration::from_secs(1));
    let mut made = TableRows::new(&columns);
    for row in rows {
        made.push(row.iter().map(Option::as_deref)).unwrap();
    }
    empty.replace(made.finish(empty.schema()));
    Arc::new(empty)
}

fn with_tables(sql: &str, fields: Vec<crate::config::Field>, tables: &[Arc<JoinTable>]) -> Arc<Connector> {
    let mut connector = Connector::clone(&with_sql(sql, fields));
    let transform = SqlTransform::clone(connector.transform.as_ref().unwrap());
    connector.transform = Some(Arc::new(SqlTransform { tables: tables.to_vec(), ..transform }));
    Arc::new(connector)
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// `id` is looked up in a table of prices with a price and a weight.
fn prices(rows: &[(&str, Option<i64>)]) -> Arc<JoinTable> {
    let rows: Vec<_> =
        rows.iter().map(|(code, price)| vec![text(code), price.map(|price| price.to_string())]).collect();
    table("prices", &[("code", FieldType::Utf8), ("price", FieldType::Int64)], &rows)
}

fn priced(join: &str, prices: &Arc<JoinTable>) -> Arc<Connector> {
    let sql = format!("SELECT i.id, 100 / p.price AS share FROM input i {join} prices p ON i.id = p.code");
    let fields = vec![field("id", FieldType::Utf8), field("share", FieldType::Int64)];
    with_tables(&sql, fields, std::slice::from_ref(prices))
}

const FOUR: [&str; 4] = [r#"{"id":"a"}"#, r#"{"id":"b"}"#, r#"{"id":"c"}"#, r#"{"id":"d"}"#];

#[test]
fn a_left_join_keeps_every_row_and_an_inner_join_filters() {
    let table = prices(&[("c", Some(5)), ("a", Some(20)), ("x", Some(0))]);
    let left = run(&priced("LEFT JOIN", &table), &[&FOUR]);
    let expected = [
        r#"{"id":"a","share":5,"_row":0}"#,
        r#"{"id":"b","_row":1}"#,
        r#"{"id":"c","share":20,"_row":2}"#,
        r#"{"id":"d","_row":3}"#,
    ];
    assert_eq!((written(&left.batches), left.filtered), (expected.map(str::to_owned).to_vec(), 0));
    let inner = run(&priced("JOIN", &table), &[&FOUR]);
    assert_eq!(written(&inner.batches), [expected[0], expected[2]]);
    assert_eq!((inner.filtered, inner.rejects.len()), (2, 0));
}

#[test]
fn rows_that_fail_by_what_they_are_joined_with_are_found() {
    let table = prices(&[("a", Some(20)), ("b", Some(0)), ("d", Some(1)), ("d", Some(2))]);
    let made = run(&priced("LEFT JOIN", &table), &[&FOUR]);
    assert_eq!(written(&made.batches), [r#"{"id":"a","share":5,"_row":0}"#, r#"{"id":"c","_row":2}"#]);
    let rejects: Vec<(i64, &str)> = made.rejects.iter().map(|reject| (reject.row, reject.detail.as_str())).collect();
    let expected = [(1, "the SQL fails: a division by zero"), (3, "the SQL makes more than one row of it")];
    assert_eq!((rejects, made.filtered), (expected.to_vec(), 0));
}

#[test]
fn a_table_is_swapped_beneath_the_plan() {
    let table = prices(&[("a", Some(20))]);
    let connector = priced("JOIN", &table);
    let plan = TransformPlan::new(&connector).unwrap();
    let shares = || written(&apply(&plan, decoded(&connector, &[&FOUR])).unwrap().batches);
    assert_eq!(shares(), [r#"{"id":"a","share":5,"_row":0}"#]);
    table.replace(prices(&[("a", Some(50)), ("d", Some(4))]).rows().unwrap());
    assert_eq!(shares(), [r#"{"id":"a","share":2,"_row":0}"#, r#"{"id":"d","share":25,"_row":3}"#]);
}

#[test]
fn no_row_is_transformed_before_a_table_is_read() {
    let unread = JoinTable::of_dimension(
        "prices".to_owned(),
        prices(&[]).columns.clone(),
        "prices".to_owned(),
        Duration::from_secs(1),
    );
    let connector = priced("LEFT JOIN", &Arc::new(unread));
    let plan = TransformPlan::new(&connector).unwrap();
    let error = apply(&plan, decoded(&connector, &[&FOUR])).unwrap_err();
    assert_eq!(error.kind(), crate::error::ErrorKind::Transient);
    assert_eq!(error.to_string(), format!("table `prices` of connector `{}` was never read", connector.name));
}

#[test]
fn tables_may_be_asked_anything() {
    let table = prices(&[("a", Some(3)), ("a", Some(4)), ("b", Some(9)), ("c", None)]);
    let fields = || vec![field("id", FieldType::Utf8), field("price", FieldType::Int64)];
    let made = |sql: &str| {
        let made = run(&with_tables(sql, fields(), std::slice::from_ref(&table)), &[&FOUR]);
        (written(&made.batches), made.filtered, made.rejects.len())
    };
    let row = |id: &str, price: i64, row: i64| format!(r#"{{"id":"{id}","price":{price},"_row":{row}}}"#);
    let grouped = "SELECT i.id, g.price FROM input i JOIN (SELECT code, max(price) AS price FROM prices GROUP BY code) g \
                   ON g.code = i.id WHERE g.price IS NOT NULL ORDER BY g.price DESC";
    assert_eq!(made(grouped), (vec![row("a", 4, 0), row("b", 9, 1)], 2, 0), "in the order of the input");
    let exists = "SELECT i.id, CAST(1 AS BIGINT) AS price FROM input i WHERE EXISTS (SELECT 1 FROM prices p WHERE p.code = i.id)";
    assert_eq!(made(exists), (vec![row("a", 1, 0), row("b", 1, 1), row("c", 1, 2)], 1, 0));
    let anti = "SELECT i.id, CAST(1 AS BIGINT) AS price FROM input i LEFT ANTI JOIN prices p ON p.code = i.id";
    assert_eq!(made(anti), (vec![row("d", 1, 3)], 3, 0));
    let scalar =
        "SELECT i.id, (SELECT max(p.price) FROM prices p WHERE p.code = i.id) AS price FROM input i WHERE i.id < 'c'";
    assert_eq!(made(scalar), (vec![row("a", 4, 0), row("b", 9, 1)], 2, 0));
    let constant = "SELECT i.id, (SELECT sum(price) FROM prices) AS price FROM input i WHERE i.id = 'd'";
    assert_eq!(made(constant), (vec![row("d", 16, 3)], 3, 0));
    let greatest = "SELECT i.id, g.price FROM input i JOIN (SELECT code, price FROM prices WHERE price > 0 ORDER BY price DESC LIMIT 1) g \
                    ON g.code = i.id";
    assert_eq!(made(greatest), (vec![row("b", 9, 1)], 3, 0), "its order decides which row a limit leaves");
    let cross = "SELECT i.id, p.price FROM input i CROSS JOIN prices p";
    assert_eq!(made(cross), (vec![], 0, 4), "four rows of each");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// An as-of join, against a look at every pair: a row takes the version that is valid at its time; of two it is rejected.
    #[test]
    fn a_join_as_of_a_time_agrees_with_a_look_at_every_pair(
        rows in proptest::collection::vec((0u8..4, 0i32..30), 1..40),
        versions in proptest::collection::vec((0u8..4, 0i64..30, proptest::option::of(1i64..12)), 0..12),
        inner in any::<bool>(),
        cut in 0usize..40,
    ) {
        let texts: Vec<Vec<Option<String>>> = versions
            .iter()
            .enumerate()
            .map(|(at, (code, from, days))| vec![
                Some(format!("c{code}")), Some(from.to_string()), days.map(|days| (from + days).to_string()), Some(at.to_string()),
            ])
            .collect();
        let columns = [
            ("code", FieldType::Utf8), ("valid_from", FieldType::TimestampMs), ("valid_to", FieldType::TimestampMs),
            ("version", FieldType::Int64),
        ];
        let history = table("history", &columns, &texts);
        let sql = format!(
            "SELECT i.id, h.version FROM input i {} history h ON i.id = h.code \
             AND to_timestamp_millis(i.quantity) >= h.valid_from \
             AND (h.valid_to IS NULL OR to_timestamp_millis(i.quantity) < h.valid_to)",
            if inner { "JOIN" } else { "LEFT JOIN" }
        );
        let connector =
            with_tables(&sql, vec![field("id", FieldType::Utf8), field("version", FieldType::Int64)], &[history]);
        let lines: Vec<String> =
            rows.iter().map(|(code, at)| format!(r#"{{"id":"c{code}","quantity":{at}}}"#)).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (one, other) = lines.split_at(cut.min(lines.len()));
        let batches: Vec<&[&str]> = [one, other].into_iter().filter(|part| !part.is_empty()).collect();
        let made = run(&connector, &batches);
        let (mut passed, mut rejected) = (Vec::new(), Vec::new());
        for (row, (code, at)) in rows.iter().enumerate() {
            let at = i64::from(*at);
            let valid: Vec<usize> = versions
                .iter()
                .enumerate()
                .filter(|(_, (of, from, days))| of == code && *from <= at && days.is_none_or(|days| at < from + days))
                .map(|(version, _)| version)
                .collect();
            match valid[..] {
                [] if inner => {}
                [] => passed.push(format!(r#"{{"id":"c{code}","_row":{row}}}"#)),
                [version] => passed.push(format!(r#"{{"id":"c{code}","version":{version},"_row":{row}}}"#)),
                _ => rejected.push(row as i64),
            }
        }
        prop_assert_eq!(&written(&made.batches), &passed);
        prop_assert_eq!(made.rejects.iter().map(|reject| reject.row).collect::<Vec<_>>(), rejected.clone());
        prop_assert_eq!(made.filtered as usize, rows.len() - passed.len() - rejected.len());
    }
}
