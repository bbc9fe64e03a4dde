//! `sluice preview` and `sluice infer`: commands that look at objects and write nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sluice-it-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&folder).expect("the temporary folder takes files");
        Self(folder)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sluice(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("the binary runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the folder's name is UTF-8")
}

const ROWS: &str = r#"{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5f","user_id":" u1 ","amount":1.5,"occurred_at":"2026-01-31T12:00:00Z"}
{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5e","user_id":"u2","amount":"much","occurred_at":"2026-01-31T12:00:00Z"}
{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5d","user_id":"u3","amount":-1,"occurred_at":"2026-01-31T12:00:00Z"}
{"transaction_id":"6b1f2f5e-8b1a-4c1d-9a1e-0a1b2c3d4e5c",user_id
not looked at
"#;

#[test]
fn a_preview_shows_each_stage_and_points_at_faults() {
    let folder = Folder::new();
    let file = folder.file("rows.json", ROWS);
    let args = ["preview", text(&file), "--connector", "transactions", "--rows", "4"];
    let output = sluice(&args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for stage in ["decoded (2 rows)", "cleaned (2 rows)", "after expectations (1 rows)"] {
        assert!(said.contains(stage), "{said}");
    }
    assert!(said.ends_with("4 of 5 rows: 1 passed, 0 filtered, 3 rejected; nothing was written\n"), "{said}");
    // the caret stands under the field, and under the byte where the syntax breaks
    let lines: Vec<&str> = said.lines().collect();
    for (reason, pointed_at) in [("invalid_value", "\"amount\""), ("malformed_json", "user_id")] {
        let at = lines.iter().position(|line| line.contains(reason)).expect("the reason is told");
        let caret = lines[at + 2].find('^').expect("a caret");
        let below: String = lines[at + 1].chars().skip(caret).collect();
        assert!(below.starts_with(pointed_at), "{said}");
    }
    assert!(lines.iter().any(|line| line.contains("expectation_failed") && line.contains("amount_positive")), "{said}");

    let output = sluice(&[&args[..], &["--output", "json"]].concat());
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(shown["stages"][0]["rows"][0]["user_id"], " u1 ");
    assert_eq!(shown["stages"][1]["rows"][0]["user_id"], "u1");
    assert_eq!((&shown["rows"], &shown["rows_all"]), (&4.into(), &5.into()));
    let rejected: Vec<(&str, u64)> = shown["rejects"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|reject| (reject["reason"].as_str().expect("text"), reject["row"].as_u64().expect("a number")))
        .collect();
    assert_eq!(rejected, [("invalid_value", 1), ("expectation_failed", 2), ("malformed_json", 3)]);
    assert_eq!(std::fs::read_dir(&folder.0).expect("ours").count(), 1, "nothing is written");
}

#[test]
fn a_connector_that_was_inferred_is_valid_and_takes_every_row_it_was_inferred_from() {
    let folder = Folder::new();
    let mut rows = String::new();
    for number in 0..500 {
        let note = if number % 3 == 0 { r#","note":null"# } else { r#","note":"secret-value","tags":{"a":[1]}"# };
        rows += &format!(
            "{{\"order_id\":{number},\"placed_at\":\"2026-01-31T12:{:02}:00+01:00\",\"sent_ms\":{},\"price\":{}.{:02},\"big\":{},\"paid\":true{note}}}\n",
            number % 60,
            1_767_225_600_000_u64 + number,
            number,
            number % 100,
            number * 10_000_000_000
        );
    }
    let file = folder.file("orders.json", &rows);
    let output = sluice(&["infer", text(&file), "--name", "orders"]);
    let drafted = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!drafted.contains("secret-value"), "{drafted}");
    for line in [
        "{name: order_id, type: int32, required: true}",
        "{name: placed_at, type: timestamp_ms, required: true, formats: [rfc3339]}",
        "{name: big, type: int64, required: true}",
        "{name: price, type: \"decimal(5,2)\", required: true}",
        "{name: note, type: utf8}  # 33.4 % null or missing",
        "time: placed_at",
        "A key could be `order_id`",
    ] {
        assert!(drafted.contains(line), "{line} is not in\n{drafted}");
    }
    std::fs::create_dir_all(folder.0.join("connectors")).expect("the folder is ours");
    folder.file("connectors/orders.yaml", &drafted);
    let connectors = folder.0.join("connectors");
    let checked = sluice(&["validate", "--connectors", text(&connectors)]);
    assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
    let (out, set) = (folder.0.join("out"), format!("connectors_dir={}", connectors.display()));
    let staged = sluice(&[
        "stage",
        text(&file),
        "--connector",
        "orders",
        "--out",
        text(&out),
        "--output",
        "json",
        "--set",
        &set,
    ]);
    let report: serde_json::Value = serde_json::from_slice(&staged.stdout).expect("JSON");
    assert_eq!((&report["rows_out"], &report["rejected"]), (&500.into(), &0.into()), "{report}");
}
