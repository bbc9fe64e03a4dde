//! `sluice resolve evaluate` on sets with known matches, where they are present, and on a made-up catalogue.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

fn evaluate(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(["resolve", "evaluate", "--json"])
        .args(args)
        .output()
        .expect("the binary runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The folder of the sets; says so where there is none.
fn data() -> Option<PathBuf> {
    let given = std::env::var_os("SLUICE_ER_DATA").map(PathBuf::from).filter(|folder| folder.is_dir());
    if given.is_none() {
        eprintln!("SKIPPED: SLUICE_ER_DATA names no folder of entity-resolution sets");
    }
    given
}

struct Set<'a> {
    folder: &'a str,
    queries: &'a str,
    reference: &'a str,
    columns: &'a str,
}

struct Floor {
    recall_at_10: f64,
    precision: f64,
    coverage: f64,
}

fn check(set: &Set<'_>, floor: &Floor) {
    let Some(folder) = data() else { return };
    let file = |name: &str| folder.join(set.folder).join(name).display().to_string();
    let (queries, reference, truth) = (file(set.queries), file(set.reference), file("gt.csv"));
    let found =
        evaluate(&["--reference", &reference, "--queries", &queries, "--truth", &truth, "--columns", set.columns]);
    let number = |pointer: &str| found.pointer(pointer).and_then(Value::as_f64).expect(pointer);
    for backend in ["recall_exact", "recall_arroy"] {
        let recall = number(&format!("/{backend}/at_10"));
        assert!(recall >= floor.recall_at_10, "{}: {backend} {recall}", set.folder);
    }
    let worlds = found["half_open"].as_array().expect("a list").clone();
    assert_eq!(worlds.len(), 3);
    for world in worlds {
        let number = |key: &str| world[key].as_f64().expect(key);
        assert!(number("precision") >= floor.precision, "{}: {world}", set.folder);
        assert!(number("coverage") >= floor.coverage, "{}: {world}", set.folder);
    }
}

#[test]
fn product_names_of_two_shops_are_matched() {
    let set = Set { folder: "abt-buy", queries: "abt.csv", reference: "buy.csv", columns: "name" };
    check(&set, &Floor { recall_at_10: 0.992, precision: 0.98, coverage: 0.55 });
}

#[test]
fn bibliographic_records_are_matched() {
    let columns = "title,authors,venue,year";
    let set = Set { folder: "dblp-acm", queries: "dblp.csv", reference: "acm.csv", columns };
    check(&set, &Floor { recall_at_10: 0.999, precision: 0.98, coverage: 0.93 });
}

#[test]
fn arroy_finds_the_exact_neighbours_of_a_catalogue() {
    let found = evaluate(&["--synthetic", "3000", "--seeds", "1"]);
    let share = found["arroy_finds_exact_top_10"].as_f64().expect("a share");
    assert!(share >= 0.985, "{share}");
    assert!(found["closed"]["precision"].as_f64().expect("a share") >= 0.98, "{found:#}");
}
