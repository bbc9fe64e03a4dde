//! `sluice stage` over directories of hostile files, in every format and compression: every row is counted, what is sound
//! comes through, nothing panics, memory is bounded.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

#[allow(dead_code, reason = "columns have one type here")]
#[path = "../../src/decode/tests/hostile_table.rs"]
mod hostile_table;

const CONNECTOR: &str = r"
name: things
source: {topic: raw-notifications, bucket: raw, prefix: things/, format: FORMAT}
schema:
  - {name: v, type: json}
  - {name: at, type: timestamp_ms, required: true}
staging: {type: thing, time: at, by: [date]}
";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).expect("memory takes it");
    gzip.finish().expect("memory takes it")
}

/// Writes each object in each compression, a sound file beside it, and a line of 100 MB.
fn write_files(folder: &Path, is_csv: bool) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut write = |bytes: &[u8]| {
        let path = folder.join(format!("{:03}", files.len()));
        std::fs::write(&path, bytes).expect("the folder is ours");
        files.push(path);
    };
    let good: &[u8] = if is_csv { b"v,at\n1,0\n" } else { b"{\"v\":1,\"at\":0}\n" };
    for hostile in hostile_table::hostile_objects().into_iter().filter(|hostile| hostile.is_csv == is_csv) {
        write(&hostile.object);
        write(&gzip(&hostile.object));
        write(&zstd::encode_all(&hostile.object[..], 1).expect("memory takes it"));
        write(good);
    }
    let (before, behind): (&[u8], &[u8]) =
        if is_csv { (b"v,at\n", b"\n1,0\n") } else { (b"", b"\n{\"v\":1,\"at\":0}\n") };
    write(&gzip(&[before, &vec![b'x'; 100_000_000], behind].concat()));
    files
}

/// Runs to its end; gives the greatest resident size seen meanwhile, in KiB.
fn watched(mut command: Command) -> (Output, u64) {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    let status = format!("/proc/{}/status", child.id());
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output().expect("a child of ours")));
    let mut resident_kib = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let peak = text.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        resident_kib = resident_kib.max(peak.unwrap_or(0));
        if let Ok(output) = ended.recv_timeout(Duration::from_millis(20)) {
            return (output, resident_kib);
        }
    }
}

/// Rows in, objects that are a fault, and rows that are sound. What is a bomb for the table is none by the limits here:
/// it is blank as JSON, and a header that is too long as CSV. Counts of rows do not depend on the columns.
fn expected(is_csv: bool) -> (u64, u64, u64) {
    let (mut rows, mut faults, mut sound) = (2, 0, 1);
    for hostile in hostile_table::hostile_objects().into_iter().filter(|hostile| hostile.is_csv == is_csv) {
        let counts: Vec<u64> = hostile.outcome.split(' ').filter_map(|word| word.parse().ok()).collect();
        faults += if counts.is_empty() && is_csv { 3 } else { 0 };
        rows += 3 * counts.iter().sum::<u64>() + 1;
        sound += 1;
    }
    (rows, faults, sound)
}

/// `sluice stage` over files that `write` makes in a folder of their own: how many they are, and its report. It ends well,
/// without a panic, in bounded memory, and what went in came out.
fn staged(format: &str, write: impl Fn(&Path) -> Vec<PathBuf>) -> (u64, serde_json::Value) {
    let folder = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
    std::fs::create_dir_all(folder.join("connectors")).expect("the temporary folder takes files");
    let connector = CONNECTOR.replace("FORMAT", format);
    std::fs::write(folder.join("connectors/things.yaml"), connector).expect("the folder is ours");
    let files = write(&folder);
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("stage").args(&files).args(["--connector", "things", "--output", "json", "--out"]);
    command.arg(folder.join("out")).current_dir(env!("CARGO_MANIFEST_DIR"));
    command.arg("--set").arg(format!("connectors_dir={}", folder.join("connectors").display()));
    for limit in
        ["record_bytes_max=10000", "object_bytes_max=110000000", "unpacked_ratio_max=100000", "json_depth_max=8"]
    {
        command.args(["--set", &format!("limits.{limit}")]);
    }
    let (output, resident_kib) = watched(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert!(!errors.contains("panicked"), "{errors}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    println!("{format}: {report}, peak {resident_kib} KiB");
    let outcomes = ["rows_out", "rejected", "filtered", "duplicates"].map(|name| count(&report, name));
    assert_eq!(count(&report, "rows_in"), outcomes.iter().sum::<u64>(), "{report}");
    assert_eq!(count(&report, "files_in"), files.len() as u64, "{report}");
    assert!(resident_kib < 512 << 10, "{resident_kib} KiB");
    std::fs::remove_dir_all(&folder).expect("the folder is ours");
    (files.len() as u64, report)
}

fn count(report: &serde_json::Value, name: &str) -> u64 {
    report[name].as_u64().expect("a count")
}

#[test]
fn every_row_of_a_directory_of_hostile_files_is_counted_in_bounded_memory() {
    for (format, is_csv) in [("json", false), ("csv", true)] {
        let (_, report) = staged(format, |folder| write_files(folder, is_csv));
        let found = ["rows_in", "quarantined", "rows_out"].map(|name| count(&report, name));
        assert_eq!(<(u64, u64, u64)>::from(found), expected(is_csv), "{report}");
    }
}

/// Values that are objects, in an array or not, as another reader finds them; `None` where it finds any flaw.
fn sound_values(object: &[u8]) -> Option<u64> {
    let values = serde_json::Deserializer::from_slice(object).into_iter::<serde_json::Value>();
    let mut row_count = 0;
    for value in values {
        let rows = match value.ok()? {
            serde_json::Value::Array(rows) => rows,
            row => vec![row],
        };
        let is_row = |row: &serde_json::Value| row.get("at").is_some_and(serde_json::Value::is_u64);
        row_count += rows.iter().all(is_row).then_some(rows.len() as u64)?;
    }
    Some(row_count)
}

#[test]
fn sound_files_between_hostile_ones_of_json_values_come_through_whole() {
    let sound: [&[u8]; 4] = [
        b"{\"v\":1,\"at\":0}{\"v\":[{}],\"at\":1}\n\n{\n  \"v\": \"}{\",\n  \"at\": 2\n}",
        b"[{\"v\":1,\"at\":0}, {\"v\":\"]\",\"at\":1}\n]\n",
        b" [] ",
        b"{\"at\":5}",
    ];
    assert_eq!(sound.map(sound_values), [Some(3), Some(2), Some(0), Some(1)]);
    let hostile: Vec<Vec<u8>> = hostile_table::hostile_objects().into_iter().map(|hostile| hostile.object).collect();
    let packed = |bytes: &[u8]| [bytes.to_vec(), gzip(bytes), zstd::encode_all(bytes, 1).expect("memory takes it")];
    let (file_count, report) = staged("json_values", |folder| {
        let objects = hostile.iter().map(Vec::as_slice).zip(sound.iter().cycle());
        let both = objects.flat_map(|(hostile, sound)| [packed(hostile), packed(sound)]).flatten();
        both.enumerate().map(|(number, bytes)| written(folder, number, &bytes)).collect()
    });
    let of_sound: u64 = (0..hostile.len()).zip(sound.iter().cycle()).filter_map(|(_, sound)| sound_values(sound)).sum();
    let of_hostile: u64 = hostile.iter().filter_map(|object| sound_values(object)).sum();
    assert!(file_count >= 300, "{file_count} files");
    assert!(count(&report, "rows_out") >= 3 * (of_sound + of_hostile), "{report}");
    assert!(count(&report, "rejected") > 0, "{report}");
}

fn written(folder: &Path, number: usize, bytes: &[u8]) -> PathBuf {
    let path = folder.join(format!("{number:04}"));
    std::fs::write(&path, bytes).expect("the folder is ours");
    path
}

/// Four rows.
fn parquet(compression: Compression) -> Vec<u8> {
    let fields = vec![Field::new("v", DataType::Utf8, true), Field::new("at", DataType::Int64, false)];
    let values = StringArray::from(vec![Some("1"), None, Some("{\"a\":[]}"), Some("null")]);
    let columns: Vec<ArrayRef> = vec![Arc::new(values), Arc::new(Int64Array::from(vec![0, 1, 2, 3]))];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns of four rows");
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).expect("plain types");
    writer.write(&rows).expect("memory takes it");
    writer.into_inner().expect("memory takes it")
}

/// What no reader takes for Parquet.
fn no_parquet(sound: &[u8]) -> Vec<Vec<u8>> {
    let cut = (1..sound.len()).step_by(9).map(|end| sound[..end].to_vec());
    let with_footer_len = |len: u32| {
        let mut bytes = sound.to_vec();
        let end = bytes.len();
        bytes[end - 8..end - 4].copy_from_slice(&len.to_le_bytes());
        bytes
    };
    let lengths = [0, 1, sound.len() as u32, i32::MAX as u32, u32::MAX].map(with_footer_len);
    let others: [&[u8]; 5] = [b"PAR1", b"PAR1PAR1", b"{\"v\":1,\"at\":0}\n", b"v,at\n1,0\n", b"\xef\xbb\xbf"];
    cut.chain(lengths).chain(others.map(<[u8]>::to_vec)).collect()
}

#[test]
fn sound_files_between_broken_parquet_come_through_and_each_other_is_a_fault_or_read_whole() {
    let sound = [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())].map(parquet);
    let broken: Vec<Vec<u8>> = sound.iter().flat_map(|sound| no_parquet(sound)).collect();
    // any byte may be another: some values change then, and nobody can tell
    let changed = |sound: &Vec<u8>| {
        let change = |at: usize| {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        };
        (0..sound.len()).step_by(5).map(change).collect::<Vec<_>>()
    };
    let changed: Vec<Vec<u8>> = sound.iter().flat_map(changed).collect();
    let (file_count, report) = staged("parquet", |folder| {
        let objects = broken.iter().chain(&changed).zip(sound.iter().cycle());
        let files = objects.flat_map(|(hostile, sound)| [hostile.clone(), sound.clone()]);
        files.enumerate().map(|(number, bytes)| written(folder, number, &bytes)).collect()
    });
    assert!(file_count >= 300, "{file_count} files");
    let faults = count(&report, "quarantined");
    assert!((broken.len()..=broken.len() + changed.len()).contains(&(faults as usize)), "{report}");
    assert!(count(&report, "rows_out") >= 4 * file_count / 2, "{report}");
}
