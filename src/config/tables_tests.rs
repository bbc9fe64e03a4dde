//! Tables that SQL joins: what is read of files, what is refused, and what the revision says of it.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, TimestampMillisecondType};
use arrow::json::ArrayWriter;
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

use super::load_texts::load_texts;
use super::{Connector, JoinSource, JoinTable, load_connectors};

const ORDERS: &str = r#"name: orders
source: {topic: raw-notifications, bucket: raw, prefix: orders/}
schema:
  - {name: order_id, type: utf8, required: true}
  - {name: code, type: utf8}
  - {name: occurred_at, type: timestamp_ms, required: true}
staging: {type: order, time: occurred_at, by: [date]}
transform:
  sql: SELECT i.*, r.rate FROM input i LEFT JOIN rates r ON i.code = r.code
  tables:
    rates: {file: rates.csv}
"#;
const RATES: &str = "code,rate,since,active,note\nEUR,1,2026-01-01T00:00:00Z,true,007\nUSD,1.25,,false,\"a, b\"\n";

fn orders(files: &[(&str, &str)]) -> Result<Arc<Connector>, String> {
    let files: Vec<(&str, &str)> = [("orders.yaml", ORDERS)].into_iter().chain(files.iter().copied()).collect();
    load_texts(&files).map(|connectors| Arc::clone(&connectors.all[0]))
}

fn table(connector: &Connector) -> &JoinTable {
    &connector.join_tables()[0]
}

/// By Arrow's own writer of JSON.
fn written(table: &JoinTable) -> Value {
    let mut writer = ArrayWriter::new(Vec::new());
    writer.write(&table.rows().expect("read with the connector")).unwrap();
    writer.finish().unwrap();
    serde_json::from_slice(&writer.into_inner()).unwrap()
}

#[test]
fn columns_of_csv_take_the_narrowest_types_that_take_their_values() {
    let connector = orders(&[("rates.csv", RATES)]).unwrap();
    let table = table(&connector);
    let types: Vec<DataType> = table.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    let rows = table.rows().unwrap();
    assert_eq!(types[0], DataType::Utf8);
    assert_eq!(types[1], DataType::Decimal128(12, 2), "whole numbers of 32 bits and two digits behind the point");
    assert_eq!(types[3], DataType::Boolean);
    assert_eq!(types[4], DataType::Utf8, "a code is no number");
    let rates = rows.column(1).as_primitive::<Decimal128Type>();
    assert_eq!(rates.values().to_vec(), [100, 125]);
    let since = rows.column(2).as_primitive::<TimestampMillisecondType>();
    assert_eq!((since.value(0), since.is_null(1)), (1_767_225_600_000, true));
    assert_eq!(rows.column(4).as_string::<i32>().value(1), "a, b");
    let made = connector.dataset().fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>();
    assert_eq!(made, ["order_id", "code", "occurred_at", "rate"]);
}

#[test]
fn columns_that_are_declared_are_taken_as_declared_and_no_others() {
    let declared = ORDERS.replace(
        "{file: rates.csv}",
        r#"{file: rates.csv, columns: [{name: note, type: int32}, {name: rate, type: "decimal(12,4)"}, {name: code, type: utf8}]}"#,
    );
    let load = |rates: &str| load_texts(&[("orders.yaml", &declared), ("rates.csv", rates)]);
    let rates = "code,rate,note\nEUR,1,007\nUSD,1.2512,\n";
    let connectors = load(rates).unwrap();
    let rows = table(&connectors.all[0]).rows().unwrap();
    assert_eq!(rows.num_columns(), 3);
    assert_eq!(rows.column(0).as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), [Some(7), None]);
    assert_eq!(rows.column(1).as_primitive::<Decimal128Type>().values().to_vec(), [10_000, 12_512]);
    let told = load(&rates.replace("1.2512", "1.25125")).unwrap_err();
    assert!(told.contains("rates.csv:3:1: a value of column `rate` is no decimal(12,4)"), "{told}");
    let told = load(&rates.replace("rate", "rat")).unwrap_err();
    assert!(
        told.contains("rates.csv:1:1: the file has no column `rate`") && told.contains("did you mean `rat`"),
        "{told}"
    );
}

#[test]
fn json_lines_are_read_by_name_and_strings_stay_strings() {
    let yaml = ORDERS.replace("rates.csv", "tables/rates.jsonl");
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("tables")).unwrap();
    std::fs::write(folder.path().join("orders.yaml"), yaml).unwrap();
    let lines =
        "{\"code\":\"7\",\"rate\":12345678901.5,\"more\":{\"a\":[1]}}\n\n{\"rate\":null,\"code\":\"U\\u0053D\"}\n";
    std::fs::write(folder.path().join("tables/rates.jsonl"), lines).unwrap();
    let connectors = load_connectors(folder.path()).map_err(|problems| problems.to_string()).unwrap();
    let expected = json!([{"code": "7", "more": "{\"a\":[1]}", "rate": 12_345_678_901.5}, {"code": "USD"}]);
    let mut found = written(table(&connectors.all[0]));
    found[0]["rate"] = json!(found[0]["rate"].as_f64().or_else(|| found[0]["rate"].as_str()?.parse().ok()));
    assert_eq!(found, expected);
    std::fs::write(folder.path().join("tables/rates.jsonl"), "{\"code\":\"7\",\"rate\":1}\n[]\n").unwrap();
    let told = load_connectors(folder.path()).unwrap_err().to_string();
    assert!(told.contains("rates.jsonl:2:1: this is no JSON object"), "{told}");
}

#[test]
fn parquet_brings_its_types_along_and_is_widened_where_that_is_declared() {
    let folder = tempfile::tempdir().unwrap();
    let times = TimestampMicrosecondArray::from(vec![Some(1_500_000), None]);
    let batch = RecordBatch::try_from_iter([
        ("code", Arc::new(StringArray::from(vec!["EUR", "USD"])) as _),
        ("rate", Arc::new(Int32Array::from(vec![2, 3])) as _),
        ("since", Arc::new(times) as _),
    ]);
    let batch = batch.unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    std::fs::write(folder.path().join("rates.parquet"), writer.into_inner().unwrap()).unwrap();
    let load = |columns: &str| {
        let yaml = ORDERS.replace("{file: rates.csv}", &format!("{{file: rates.parquet{columns}}}"));
        std::fs::write(folder.path().join("orders.yaml"), yaml).unwrap();
        load_connectors(folder.path()).map_err(|problems| problems.to_string())
    };
    let connectors = load("").unwrap();
    let rows = table(&connectors.all[0]).rows().unwrap();
    assert_eq!(rows.column(1).as_primitive::<Int32Type>().values().to_vec(), [2, 3]);
    assert_eq!(rows.column(2).as_primitive::<TimestampMillisecondType>().value(0), 1500);
    let wide = r#", columns: [{name: code, type: utf8}, {name: rate, type: "decimal(14,2)"}]"#;
    let wide = load(wide).unwrap();
    let rates = table(&wide.all[0]).rows().unwrap();
    assert_eq!(rates.column(1).as_primitive::<Decimal128Type>().values().to_vec(), [200, 300]);
    let told = load(", columns: [{name: code, type: int32}, {name: rate, type: int32}]").unwrap_err();
    assert!(told.contains("column `code` is Utf8, which is no int32"), "{told}");
    std::fs::write(folder.path().join("rates.parquet"), b"PAR1").unwrap();
    assert!(load("").unwrap_err().contains("this is no Parquet"));
}

#[test]
fn what_a_file_says_is_part_of_the_revision_and_how_often_a_dimension_is_read_is_not() {
    let revision = |files: &[(&str, &str)]| load_texts(files).unwrap().all[0].revision.clone();
    let with = |yaml: &str, rates: &str| revision(&[("orders.yaml", yaml), ("rates.csv", rates)]);
    let plain = with(ORDERS, RATES);
    assert_ne!(with(ORDERS, &RATES.replace("1.25", "1.26")), plain);
    let renamed = ORDERS.replace("rates.csv", "other.csv");
    assert_eq!(revision(&[("orders.yaml", &renamed), ("other.csv", RATES)]), plain, "the bytes decide, not the name");
    let dimension = |refresh: &str| {
        let table = format!(
            "{{dimension: rates, columns: [{{name: code, type: utf8}}, {{name: rate, type: int32}}]{refresh}}}"
        );
        with(&ORDERS.replace("{file: rates.csv}", &table), RATES)
    };
    assert_ne!(dimension(""), plain);
    assert_eq!(dimension(", refresh: 30s"), dimension(""));
    let text = ORDERS.replace(
        "{file: rates.csv}",
        "{dimension: rates, columns: [{name: code, type: utf8}, {name: rate, type: int32}]}",
    );
    let connectors = load_texts(&[("orders.yaml", &text)]).unwrap();
    let table = table(&connectors.all[0]);
    assert!(matches!(&table.source, JoinSource::Dimension { refresh, .. } if refresh.as_secs() == 300));
    assert!(table.rows().is_none() && connectors.join_dimensions(), "nothing is read without the warehouse");
}

#[test]
fn misuse_of_tables_is_told_at_its_place() {
    let told = |table: &str| {
        let text = ORDERS.replace("{file: rates.csv}", table);
        load_texts(&[("orders.yaml", &text), ("rates.csv", RATES)]).err().unwrap_or_default()
    };
    let dimension = "dimension: rates, columns: [{name: code, type: utf8}, {name: rate, type: int32}]";
    for (table, expected) in [
        ("{}".to_owned(), "orders.yaml:11:5: table `rates` names neither of `file` and `dimension`"),
        (format!("{{file: rates.csv, {dimension}}}"), "table `rates` names both of `file` and `dimension`"),
        ("{file: ../rates.csv}".to_owned(), "orders.yaml:11:19: `../rates.csv` is no name of a file"),
        ("{file: /etc/passwd}".to_owned(), "`/etc/passwd` is no name of a file"),
        ("{file: rats.csv}".to_owned(), "`rats.csv` cannot be read"),
        ("{file: orders.yaml}".to_owned(), "the end of its name does not say what is in it"),
        ("{file: rates.csv, refresh: 5m}".to_owned(), "orders.yaml:11:30: `refresh` means nothing for a file"),
        ("{file: rates.csv, columns: [{name: code, type: text}]}".to_owned(), "did you mean `utf8`?"),
        ("{dimension: rates}".to_owned(), "nothing says which columns of dimension `rates` to take"),
        (format!("{{{}}}", dimension.replace("rates,", "dim_rates,")), "`dim_rates` is no dimension's name"),
        (format!("{{{dimension}, refresh: 5x}}"), "`refresh` is no interval"),
        (format!("{{{dimension}, refresh: 10ms}}"), "at least 1s"),
        ("{file: rates.csv, colums: []}".to_owned(), "did you mean `columns`?"),
    ] {
        let told = told(&table);
        assert!(told.contains(expected), "{expected}: {told}");
    }
    let told = |from: &str, to: &str| {
        let text = ORDERS.replace(from, to);
        load_texts(&[("orders.yaml", &text), ("rates.csv", RATES)]).unwrap_err()
    };
    let unknown = told("LEFT JOIN rates r", "LEFT JOIN rats r");
    assert!(unknown.contains("there is no table `rats`") && unknown.contains("did you mean `rates`"), "{unknown}");
    let column = told("r.rate", "r.ratte");
    assert!(column.contains("there is no column `ratte`") && column.contains("did you mean `rate`"), "{column}");
    assert!(told("    rates:", "    input:").contains("`input` cannot be a table's name"));
    assert!(told("LEFT JOIN", "FULL JOIN").contains("a join that makes rows without a row of `input`"));
    assert!(
        told("LEFT JOIN rates r ON i.code = r.code", "RIGHT JOIN rates r ON i.code = r.code").contains("without a row")
    );
    let broken = load_texts(&[("orders.yaml", ORDERS), ("rates.csv", "code,rate\nEUR\n")]).unwrap_err();
    assert!(broken.contains("rates.csv:2:1: this is no CSV"), "{broken}");
    let twice = load_texts(&[("orders.yaml", ORDERS), ("rates.csv", "code,code\na,b\n")]).unwrap_err();
    assert!(twice.contains("the header has `code` twice"), "{twice}");
}

#[test]
fn what_is_nearly_a_dimension_or_a_column_of_the_folder_is_a_slip() {
    const PRODUCTS: &str = r#"name: products
source: {topic: raw-notifications, bucket: raw, prefix: products/}
schema:
  - {name: product_id, type: utf8, required: true}
  - {name: price, type: "decimal(12,2)"}
  - {name: updated_at, type: timestamp_ms, required: true}
staging: {type: product, time: updated_at, by: [date]}
warehouse: {dimension: dim_products, key: [product_id], newer_by: updated_at}
load: {track_history: [price]}
"#;
    let told = |dimension: &str, column: &str, data_type: &str| {
        let table = format!(
            "{{dimension: {dimension}, columns: [{{name: product_id, type: utf8}}, {{name: {column}, type: \"{data_type}\"}}]}}"
        );
        let text = ORDERS.replace("r.rate", &format!("r.{column}")).replace("{file: rates.csv}", &table);
        let text = text.replace("i.code = r.code", "i.code = r.product_id");
        load_texts(&[("orders.yaml", &text), ("products.yaml", PRODUCTS)]).err().unwrap_or_default()
    };
    assert_eq!(told("products", "price", "decimal(12,2)"), "");
    assert_eq!(told("products", "price", "decimal(14,3)"), "", "a wider type takes it");
    assert_eq!(told("products", "valid_from", "timestamp_ms"), "", "a column of the warehouse's own");
    assert_eq!(told("stores", "price", "int32"), "", "filled by someone else");
    assert_eq!(told("products", "product_key", "int64"), "", "the dimension's own key");
    assert_eq!(told("products_history", "price", "decimal(12,2)"), "", "the loader makes it");
    assert!(
        told("product", "price", "decimal(12,2)").contains("orders.yaml:11:24: no connector fills dimension `product`")
    );
    assert!(told("products", "prise", "decimal(12,2)").contains("no connector fills column `prise`"));
    assert!(
        told("products", "price", "int32")
            .contains("column `price` is int32, but the dimension is filled with decimal(12,2)")
    );
}
