//! `sluice stage`: what the generator knows of its rows is what comes out, each row once, without any server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Decimal128Type;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_loadtest::bulk::{BulkPlan, FileFormat, generate_files};
use sluice_loadtest::{Compression, Dataset};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).expect("the temporary folder takes files");
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(compression: Compression) -> BulkPlan {
    BulkPlan {
        dataset: Dataset::Transactions,
        format: FileFormat::Json,
        compression,
        seed: 7,
        size_bytes: 4 << 20,
        object_bytes: 1 << 20,
        row_bytes: 513,
        dirty_share: 0.02,
        duplicate_share: 0.01,
        hours: 6,
        is_clean: false,
    }
}

fn stage(files: &[PathBuf], out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("stage").args(files).args(["--connector", "transactions", "--output", "json", "--out"]).arg(out);
    command.args(more).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the binary runs")
}

/// Every Parquet file below a folder.
fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("a folder of ours").path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    found
}

fn batches(folder: &Path) -> Vec<RecordBatch> {
    let read = |path: PathBuf| {
        let file = std::fs::File::open(path).expect("a file of ours");
        ParquetRecordBatchReaderBuilder::try_new(file).expect("a whole file").build().expect("a readable schema")
    };
    parquet_files(folder).into_iter().flat_map(read).map(|batch| batch.expect("readable pages")).collect()
}

#[test]
fn staged_files_hold_every_row_once_and_rejects_stand_beside_them() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let folder = Folder::new();
        let input = folder.0.join("input");
        let expected = generate_files(&plan(compression), &input).expect("the generator writes");
        let mut files: Vec<PathBuf> = std::fs::read_dir(&input)
            .expect("a folder of ours")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| !path.ends_with("expected.json"))
            .collect();
        files.sort();
        assert_eq!(files.len(), expected.files);
        let out = folder.0.join("out");
        // micro-batches of one file and a part, on several threads
        let more = ["--set", "limits.micro_batch_bytes_max=1500KiB", "--threads", "3"];
        let output = stage(&files, &out, &more);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        for (name, count) in [
            ("files_in", expected.files as u64),
            ("bytes_in", expected.bytes),
            ("unpacked_bytes", expected.unpacked_bytes),
            ("rows_in", expected.rows),
            ("rows_out", expected.deduped.rows),
            ("duplicates", expected.duplicates),
            ("rejected", expected.rejected),
            ("quarantined", 0),
        ] {
            assert_eq!(report[name], count, "{name} of {report}");
        }

        let rows = batches(&out.join("data"));
        let mut amount_sum = 0_i128;
        let mut rows_by_currency: BTreeMap<String, u64> = BTreeMap::new();
        for batch in &rows {
            let amounts = batch.column_by_name("amount").expect("a column").as_primitive::<Decimal128Type>();
            amount_sum += amounts.values().iter().sum::<i128>();
            for currency in batch.column_by_name("currency").expect("a column").as_string::<i32>().iter().flatten() {
                *rows_by_currency.entry(currency.to_owned()).or_default() += 1;
            }
        }
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>() as u64, expected.deduped.rows);
        assert_eq!(format!("{}.{:02}", amount_sum / 100, amount_sum % 100), expected.deduped.amount_sum);
        assert_eq!(rows_by_currency, expected.deduped.rows_by_currency);

        let mut rejected_by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for batch in batches(&out.join("dead-letters")) {
            for reason in batch.column_by_name("reason").expect("a column").as_string::<i32>().iter().flatten() {
                *rejected_by_reason.entry(reason.to_owned()).or_default() += 1;
            }
        }
        assert_eq!(rejected_by_reason, expected.rejected_by_reason);

        let again = stage(&files, &out, &more);
        assert_eq!(again.status.code(), Some(3), "a folder in use is refused");
        assert_eq!(
            batches(&out.join("data")).iter().map(RecordBatch::num_rows).sum::<usize>() as u64,
            expected.deduped.rows
        );
    }
}

#[test]
fn a_file_that_cannot_be_unpacked_is_a_dead_letter_and_costs_its_neighbours_nothing() {
    let folder = Folder::new();
    let good = folder.0.join("good.json");
    let row = r#"{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5f","user_id":"u1","amount":1.5,"occurred_at":"2026-01-31T12:00:00Z"}"#;
    std::fs::write(&good, row).expect("the folder is ours");
    let broken = folder.0.join("broken.json.gz");
    let bytes = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, 2, 3];
    std::fs::write(&broken, bytes).expect("the folder is ours");
    let out = folder.0.join("out");
    let output = stage(&[broken.clone(), good], &out, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["rows_out"], &report["quarantined"]), (&1.into(), &1.into()), "{report}");
    let letters = batches(&out.join("dead-letters"));
    let column = |name: &str| letters[0].column_by_name(name).expect("a column").clone();
    assert_eq!(column("reason").as_string::<i32>().value(0), "corrupt_compression");
    assert_eq!(column("key").as_string::<i32>().value(0), broken.to_string_lossy());
    assert_eq!(column("bytes").as_binary::<i32>().value(0), bytes);
}

#[test]
fn an_expectation_that_stops_the_connector_ends_the_run() {
    let folder = Folder::new();
    let connectors = folder.0.join("connectors");
    std::fs::create_dir_all(&connectors).expect("the folder is ours");
    for entry in
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors")).expect("the project has it")
    {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).expect("a connector");
            let text = text.replace("amount > 0\", on_fail: reject", "amount > 0\", on_fail: fail");
            std::fs::write(connectors.join(path.file_name().expect("a file")), text).expect("the folder is ours");
        }
    }
    let file = folder.0.join("rows.json");
    let row = r#"{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5f","user_id":"u1","amount":-1,"occurred_at":"2026-01-31T12:00:00Z"}"#;
    std::fs::write(&file, row).expect("the folder is ours");
    let out = folder.0.join("out");
    let args = ["--set".to_owned(), format!("connectors_dir={}", connectors.display())];
    let output = stage(std::slice::from_ref(&file), &out, &args.each_ref().map(String::as_str));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("amount_positive") && error.contains("rows.json"), "{error}");
    assert!(parquet_files(&out).is_empty(), "nothing of that micro-batch is written");
}

#[test]
fn a_file_that_is_not_there_and_an_unknown_connector_are_named() {
    let folder = Folder::new();
    let missing = folder.0.join("missing.json");
    let output = stage(std::slice::from_ref(&missing), &folder.0.join("out"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&*missing.to_string_lossy()));
    let args = ["stage", "x.json", "--connector", "transaction", "--out", "nowhere"];
    let output = Command::new(env!("CARGO_BIN_EXE_sluice")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(error.contains("no connector `transaction`") && error.contains("transactions"), "{error}");
}
