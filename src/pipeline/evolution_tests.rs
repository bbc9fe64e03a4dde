//! Old and new producers side by side: what each policy makes of their rows, against the JSON itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::local::{StageJob, StageReport, stage_files};
use super::*;
use crate::config::{Evolution, Field, Limits, NewField, SeenTypes, Settings, TimestampFormat, TypeChange};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-evolution-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn field(name: &str, data_type: FieldType, required: bool) -> Field {
    let formats = if data_type == FieldType::TimestampMs { vec![TimestampFormat::EpochMs] } else { Vec::new() };
    Field { name: name.to_owned(), data_type, required, formats, header: None, path: None }
}

/// `id`, `at` and `amount`, a whole number as the first producers wrote it.
fn connector(evolution: Evolution) -> Arc<Connector> {
    let fields = vec![
        field("id", FieldType::Int64, true),
        field("at", FieldType::TimestampMs, true),
        field("amount", FieldType::Int32, false),
    ];
    Arc::new(Connector { evolution, ..Connector::of_objects("things", fields, "at") })
}

/// Rows of the producers of three versions: 1 knows `amount` as a whole number; 2 writes it with cents and adds
/// `note` (a whole number); 3 writes `amount` as text now and then, `note` as text, and adds `tags`.
fn row(version: u64, id: u64) -> Value {
    let at = 1_767_225_600_000_u64 + id * 500;
    match version {
        1 => json!({"id": id, "at": at, "amount": id % 100_000}),
        2 => {
            let amount: Value = serde_json::from_str(&format!("{}.{:02}", id % 1000, id % 100)).unwrap();
            json!({"id": id, "at": at, "amount": amount, "note": id * 3_000_000_000})
        }
        _ => {
            let amount = if id.is_multiple_of(5) { json!(format!("EUR {id}")) } else { json!(id) };
            json!({"id": id, "at": at, "amount": amount, "note": format!("n{id}"), "tags": {"even": id.is_multiple_of(2)}})
        }
    }
}

/// Objects of 500 rows, their producers in turn; some objects hold rows of all.
fn write_objects(folder: &Path, row_count: u64, versions: &[u64]) -> (Vec<PathBuf>, Vec<Value>) {
    let (mut files, mut rows) = (Vec::new(), Vec::new());
    for (number, first) in (0..row_count).step_by(500).enumerate() {
        let mut text = String::new();
        for id in first..first + 500 {
            let is_mixed = number % 7 == 6;
            let turn = if is_mixed { id as usize } else { number };
            let row = row(versions[turn % versions.len()], id);
            text.push_str(&row.to_string());
            text.push('\n');
            rows.push(row);
        }
        let path = folder.join(format!("{number:04}.json"));
        std::fs::write(&path, text).unwrap();
        files.push(path);
    }
    (files, rows)
}

fn limits() -> Limits {
    Settings::load(None, std::iter::empty(), &[]).unwrap().limits
}

fn stage(connector: &Arc<Connector>, files: &[PathBuf], out: &Path, threads: usize) -> StageReport {
    let job = StageJob {
        connector: Arc::clone(connector),
        limits: limits(),
        files: files.to_vec(),
        out: out.to_owned(),
        threads,
    };
    stage_files(&job).unwrap()
}

fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { parquet_files(&path) } else { vec![path] }).collect()
}

/// Every row's columns as text by its id; null columns left out, so that files of several schemas compare.
fn read_rows(folder: &Path) -> BTreeMap<i64, BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for path in parquet_files(folder) {
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
        for batch in reader.build().unwrap() {
            let batch: RecordBatch = batch.unwrap();
            for row in 0..batch.num_rows() {
                let mut columns = BTreeMap::new();
                for (index, field) in batch.schema().fields().iter().enumerate() {
                    let wanted = !field.name().starts_with('_') || field.name() == "_rescued";
                    if wanted && batch.column(index).is_valid(row) {
                        let options = FormatOptions::default();
                        let formatter = ArrayFormatter::try_new(batch.column(index), &options).unwrap();
                        columns.insert(field.name().clone(), formatter.value(row).to_string());
                    }
                }
                let id = batch.column_by_name("id").unwrap();
                let id = id.as_primitive::<arrow::datatypes::Int64Type>().value(row);
                columns.remove("at");
                assert!(all.insert(id, columns).is_none(), "row {id} stands twice");
            }
        }
    }
    all
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What a row is under the policies, by its JSON alone; `None`: rejected.
fn expected(row: &Value, evolution: Evolution) -> Option<BTreeMap<String, String>> {
    let mut columns = BTreeMap::from([("id".to_owned(), row["id"].to_string())]);
    let mut rescued = Vec::new();
    for (name, value) in row.as_object().unwrap() {
        match name.as_str() {
            "id" | "at" => {}
            "amount" if value.is_u64() => {
                columns.insert(name.clone(), value.to_string());
            }
            "amount" => match evolution.type_change {
                TypeChange::Reject => return None,
                TypeChange::Ignore => {}
                TypeChange::Rescue => rescued.push(format!("\"{name}\":{value}")),
                TypeChange::Evolve => {
                    let digits = text(value);
                    let plain = if value.is_number() && digits.contains('.') {
                        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
                    } else {
                        digits
                    };
                    columns.insert(name.clone(), plain);
                }
            },
            _ => match evolution.new_field {
                NewField::Reject => return None,
                NewField::Ignore => {}
                NewField::Rescue => rescued.push(format!("\"{name}\":{value}")),
                NewField::Evolve => {
                    columns.insert(name.clone(), text(value));
                }
            },
        }
    }
    if !rescued.is_empty() {
        columns.insert("_rescued".to_owned(), format!("{{{}}}", rescued.join(",")));
    }
    Some(columns)
}

const ROWS: u64 = 100_000;

#[test]
fn producers_of_three_schemas_side_by_side_make_exact_rows_and_no_more_files_under_each_policy() {
    let folder = Folder::new();
    let (files, rows) = write_objects(&folder.0, ROWS, &[1, 2, 3]);
    let one_schema = Folder::new();
    let (plain_files, _) = write_objects(&one_schema.0, ROWS, &[1]);
    let report = stage(&connector(Evolution::default()), &plain_files, &one_schema.0.join("out"), 1);
    assert_eq!(report.rows_out, ROWS);
    let file_count_max = parquet_files(&one_schema.0.join("out/data")).len();
    for (number, (new_field, type_change)) in [
        (NewField::Reject, TypeChange::Reject),
        (NewField::Ignore, TypeChange::Ignore),
        (NewField::Rescue, TypeChange::Rescue),
        (NewField::Evolve, TypeChange::Evolve),
        (NewField::Evolve, TypeChange::Reject),
        (NewField::Ignore, TypeChange::Evolve),
    ]
    .into_iter()
    .enumerate()
    {
        let evolution = Evolution { new_field, type_change, added_count: 0 };
        let wanted: BTreeMap<i64, _> =
            rows.iter().filter_map(|row| Some((row["id"].as_i64()?, expected(row, evolution)?))).collect();
        let out = folder.0.join(format!("out{number}"));
        let report = stage(&connector(evolution), &files, &out, 1);
        assert_eq!(report.rows_in, ROWS);
        assert_eq!(report.rejected, ROWS - wanted.len() as u64, "{evolution:?}");
        let found = read_rows(&out.join("data"));
        assert_eq!(found.len(), wanted.len(), "{evolution:?}");
        for (id, columns) in &wanted {
            // a micro-batch before the first text still has a decimal: as text it has its zeros
            let found: BTreeMap<String, String> = found[id].iter().map(|(n, v)| (n.clone(), unpadded(n, v))).collect();
            let columns: BTreeMap<String, String> = columns.iter().map(|(n, v)| (n.clone(), unpadded(n, v))).collect();
            assert_eq!(found, columns, "row {id} under {evolution:?}");
        }
        let file_count = parquet_files(&out.join("data")).len();
        assert!(file_count <= file_count_max, "{file_count} files, {file_count_max} of one schema: {evolution:?}");
    }
}

fn unpadded(name: &str, value: &str) -> String {
    if name == "amount" && value.contains('.') {
        return value.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    value.to_owned()
}

/// More than a block of rows of the first version, then those of the last one: the blocks before have the narrower schema.
#[test]
fn a_file_whose_schema_grows_between_its_blocks_has_the_rows_of_the_grown_schema() {
    let folder = Folder::new();
    let evolution = Evolution { new_field: NewField::Evolve, type_change: TypeChange::Evolve, added_count: 0 };
    let rows: Vec<Value> = (0..200_000).map(|id| row(if id < 190_000 { 1 } else { 3 }, id)).collect();
    let lines = rows.iter().map(|row| row.to_string() + "\n").collect::<String>();
    assert!(lines.len() > 8 << 20, "all of it is one block");
    let file = folder.0.join("large.json");
    std::fs::write(&file, lines).unwrap();
    let report = stage(&connector(evolution), &[file], &folder.0.join("out"), 1);
    assert_eq!((report.rows_out, report.rejected), (200_000, 0));
    let found = read_rows(&folder.0.join("out/data"));
    for row in &rows {
        let id = row["id"].as_i64().unwrap();
        assert_eq!(found[&id], expected(row, evolution).unwrap(), "row {id}");
    }
}

#[test]
fn a_run_that_knows_the_grown_schema_makes_the_rows_of_the_run_that_grew_it() {
    let folder = Folder::new();
    let (files, _) = write_objects(&folder.0, 6_000, &[1, 2, 3]);
    let evolution = Evolution { new_field: NewField::Evolve, type_change: TypeChange::Evolve, added_count: 0 };
    let declared = connector(evolution);
    let seen = SeenTypes::from([
        ("amount".to_owned(), FieldType::Utf8),
        ("note".to_owned(), FieldType::Utf8),
        ("tags".to_owned(), FieldType::Json),
    ]);
    let grown = Arc::new(declared.evolved(&seen));
    stage(&declared, &files, &folder.0.join("first"), 1);
    stage(&grown, &files, &folder.0.join("again"), 1);
    let backwards: Vec<PathBuf> = files.iter().rev().cloned().collect();
    stage(&declared, &backwards, &folder.0.join("backwards"), 1);
    let first = read_rows(&folder.0.join("first/data"));
    assert_eq!(first.len(), 6_000);
    assert_eq!(first, read_rows(&folder.0.join("again/data")));
    assert_eq!(first, read_rows(&folder.0.join("backwards/data")));
}

#[test]
fn a_widened_column_is_what_the_wider_type_would_have_read() {
    let decimal = FieldType::Decimal { precision: 12, scale: 2 };
    let wide = FieldType::Decimal { precision: 20, scale: 4 };
    let read = |data_type, values: &str| {
        let mut connector = Connector::clone(&connector(Evolution::default()));
        connector.fields = vec![field("v", data_type, false)];
        // as a column that data added
        connector.evolution.added_count = 1;
        let limits = crate::decode::DecodeLimits::new(&limits());
        let decoded =
            crate::decode::decode_object(&Arc::new(connector.clone()), &values.to_owned().into(), &limits).unwrap().0;
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        Arc::clone(decoded.batches[0].rows.column(0))
    };
    for (from, to, values) in [
        (FieldType::Int32, FieldType::Int64, ["0", "-2147483648", "2147483647"]),
        (FieldType::Int64, decimal, ["0", "-5", "123456789"]),
        (FieldType::Int64, FieldType::Float64, ["0", "9007199254740993", "-9223372036854775808"]),
        (decimal, wide, ["0.50", "-1234567890.12", "7"]),
        (decimal, FieldType::Float64, ["0.29", "1234567890.12", "-0.07"]),
        (decimal, FieldType::Utf8, ["0.50", "-12", "1e2"]),
        (FieldType::Int32, FieldType::Utf8, ["-0", "12", "-7"]),
        (FieldType::Boolean, FieldType::Utf8, ["true", "false", "null"]),
        (FieldType::Json, FieldType::Utf8, [r#"{"a": "b"}"#, "[1, 2]", "null"]),
    ] {
        let lines = values.map(|value| format!("{{\"v\":{value}}}")).join("\n");
        let widened = widen_column(&read(from, &lines), from, to).unwrap();
        assert_eq!(&*widened, &*read(to, &lines), "{from:?} to {to:?}");
    }
}

fn any_seen() -> impl Strategy<Value = SeenTypes> {
    let types = prop_oneof![
        Just(FieldType::Int32),
        Just(FieldType::Int64),
        Just(FieldType::Decimal { precision: 12, scale: 3 }),
        Just(FieldType::Utf8),
        Just(FieldType::Json),
        Just(FieldType::Boolean),
    ];
    proptest::collection::btree_map("[a-d]|amount", types, 0..5)
}

proptest! {
    #[test]
    fn the_order_in_which_objects_are_seen_has_no_say_in_the_schema(a in any_seen(), b in any_seen(), c in any_seen()) {
        let evolution = Evolution { new_field: NewField::Evolve, type_change: TypeChange::Evolve, added_count: 0 };
        let declared = connector(evolution);
        let one = declared.evolved(&a).evolved(&b).evolved(&c);
        let other = declared.evolved(&c).evolved(&a).evolved(&b);
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(&declared.evolved(&a).united(&declared.evolved(&c).united(&declared.evolved(&b))), &one);
        prop_assert_eq!(&declared.evolved(&one.seen_since(&declared)), &one);
        prop_assert_eq!(&one.evolved(&a), &one);
    }
}

#[test]
fn what_data_cannot_change_stays_and_what_no_column_takes_is_kept() {
    let folder = Folder::new();
    let path = folder.0.join("1.json");
    let lines = [
        // the event time never becomes text
        r#"{"id":1,"at":"yesterday"}"#,
        // no name of a column; a null adds none
        r#"{"id":2,"at":1767225600000,"userId":7,"_offset":1,"gone":null}"#,
        r#"{"id":3,"at":1767225600000,"ok":1e400}"#,
        // a faulty row changes nothing
        r#"{"id":4,"at":1767225600000,"never":1,"never":2}"#,
        r#"{"at":1767225600000,"neither":1}"#,
    ];
    std::fs::write(&path, lines.join("\n")).unwrap();
    let evolution = Evolution { new_field: NewField::Evolve, type_change: TypeChange::Evolve, added_count: 0 };
    let report = stage(&connector(evolution), &[path], &folder.0.join("out"), 1);
    assert_eq!((report.rows_in, report.rows_out, report.rejected), (5, 2, 3));
    let reasons =
        BTreeMap::from([("invalid_value", 0), ("wrong_type", 1), ("duplicate_field", 1), ("missing_required", 1)]);
    for (reason, count) in reasons {
        assert_eq!(report.dead_letters.get(reason).copied().unwrap_or(0), count, "{reason}");
    }
    let rows = read_rows(&folder.0.join("out/data"));
    assert_eq!(rows[&2]["_rescued"], r#"{"userId":7,"_offset":1}"#);
    assert_eq!(rows[&3]["_rescued"], r#"{"ok":1e400}"#);
    assert_eq!(rows[&2].len(), 2, "no column was added: {rows:?}");
}
