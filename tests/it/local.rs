//! `sluice stage`: what the generator knows of its rows is what comes out, each row once, without any server.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use sluice_loadtest::FileFormat;
use sluice_loadtest::bulk::{BulkPlan, generate_files};
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

/// Writes rows of about 500 bytes, every thousandth of them broken, until there are so many bytes of them.
fn write_large(mut out: impl Write, size_bytes: usize) -> u64 {
    let padding = "x".repeat(360);
    let (mut written, mut rows) = (0, 0);
    while written < size_bytes {
        let line = if rows % 1000 == 999 {
            format!("broken {rows}\n")
        } else {
            let id = uuid::Uuid::from_u128(u128::from(rows));
            let at = format!("2026-01-31T{:02}:00:00Z", rows % 24);
            format!(
                r#"{{"transaction_id":"{id}","user_id":"u1","amount":1.5,"occurred_at":"{at}","note":"{padding}"}}"#
            ) + "\n"
        };
        out.write_all(line.as_bytes()).expect("the folder is ours");
        written += line.len();
        rows += 1;
    }
    out.flush().expect("the folder is ours");
    rows
}

/// Runs to its end; gives the greatest resident size seen meanwhile, in bytes.
fn stage_watched(files: &[PathBuf], out: &Path) -> (Output, u64) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("stage").args(files).args(["--connector", "transactions", "--output", "json", "--out"]).arg(out);
    command.args(["--set", "limits.object_bytes_max=1GiB"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let status = format!("/proc/{}/status", child.id());
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output().expect("a child of ours")));
    let mut resident_kib = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        resident_kib = resident_kib.max(peak.unwrap_or(0));
        if let Ok(output) = ended.recv_timeout(std::time::Duration::from_millis(20)) {
            return (output, resident_kib << 10);
        }
    }
}

#[test]
fn a_large_file_is_staged_in_chunks_in_bounded_memory() {
    let folder = Folder::new();
    let path = folder.0.join("large.json.gz");
    let file = std::fs::File::create(&path).expect("the folder is ours");
    let rows = write_large(flate2::write::GzEncoder::new(file, flate2::Compression::fast()), 320 << 20);
    let out = folder.0.join("out");
    let (output, resident_bytes) = stage_watched(std::slice::from_ref(&path), &out);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["rows_in"], &report["rejected"]), (&rows.into(), &(rows / 1000).into()), "{report}");
    println!("peak resident size {} MiB", resident_bytes >> 20);
    assert!(resident_bytes < 300 << 20, "{} MiB for 320 MiB of rows", resident_bytes >> 20);

    let staged = batches(&out.join("data"));
    let rejected = batches(&out.join("dead-letters"));
    let numbers = |batch: &RecordBatch| {
        batch.column_by_name("_row").expect("lineage").as_primitive::<Int64Type>().values().to_vec()
    };
    let mut all: Vec<i64> = staged.iter().chain(&rejected).flat_map(numbers).collect();
    all.sort_unstable();
    assert_eq!(all, (0..rows as i64).collect::<Vec<_>>(), "each row once");
    let mut chunks: Vec<&str> = Vec::new();
    for batch in &staged {
        chunks.extend(batch.column_by_name("_batch").expect("lineage").as_string::<i32>().iter().flatten());
    }
    chunks.sort_unstable();
    chunks.dedup();
    assert_eq!(chunks.len(), 5, "a chunk is the fewest blocks of 8 MiB that have 64 MiB");
}

#[test]
fn a_large_file_that_ends_early_leaves_nothing_but_its_dead_letter() {
    let folder = Folder::new();
    let path = folder.0.join("large.json.gz");
    let mut packed = Vec::new();
    write_large(flate2::write::GzEncoder::new(&mut packed, flate2::Compression::fast()), 90 << 20);
    packed.truncate(packed.len() - 10);
    std::fs::write(&path, &packed).expect("the folder is ours");
    let out = folder.0.join("out");
    let (output, _) = stage_watched(std::slice::from_ref(&path), &out);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    for (name, count) in [("quarantined", 1), ("rows_in", 0), ("rows_out", 0), ("files_in", 1), ("files_out", 1)] {
        assert_eq!(report[name], count, "{name} of {report}");
    }
    assert!(parquet_files(&out.join("data")).is_empty());
    let letters = batches(&out.join("dead-letters"));
    let bytes = letters[0].column_by_name("bytes").expect("a column").as_binary::<i32>();
    assert_eq!((letters.len(), bytes.value(0)), (1, &packed[..]));
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
