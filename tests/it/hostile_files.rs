//! `sluice stage` over a directory of hostile files: every row is counted, what is sound comes through, memory is bounded.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

#[test]
fn every_row_of_a_directory_of_hostile_files_is_counted_in_bounded_memory() {
    for (format, is_csv) in [("json", false), ("csv", true)] {
        let folder = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(folder.join("connectors")).expect("the temporary folder takes files");
        let connector = CONNECTOR.replace("FORMAT", format);
        std::fs::write(folder.join("connectors/things.yaml"), connector).expect("the folder is ours");
        let files = write_files(&folder, is_csv);
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.arg("stage").args(&files).args(["--connector", "things", "--output", "json", "--out"]);
        command.arg(folder.join("out")).current_dir(env!("CARGO_MANIFEST_DIR"));
        command.arg("--set").arg(format!("connectors_dir={}", folder.join("connectors").display()));
        for limit in ["record_bytes_max=10000", "object_bytes_max=110000000", "json_depth_max=8"] {
            command.args(["--set", &format!("limits.{limit}")]);
        }
        let (output, resident_kib) = watched(command);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        let count = |name: &str| report[name].as_u64().expect("a count");
        println!("{format}: {report}, peak {resident_kib} KiB");
        assert_eq!(count("rows_in"), count("rows_out") + count("rejected") + count("filtered") + count("duplicates"));
        let found = (count("rows_in"), count("quarantined"), count("rows_out"));
        assert_eq!(found, expected(is_csv), "{report}");
        assert!(resident_kib < 512 << 10, "{resident_kib} KiB");
        std::fs::remove_dir_all(&folder).expect("the folder is ours");
    }
}
