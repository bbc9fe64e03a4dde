//! The scripts of `benches/`: what they say must be believable.

use std::path::Path;
use std::process::Command;

#[test]
fn the_staging_measurement_counts_everything_and_refuses_ratios_where_engines_differ() {
    assert_passes("staging", 10);
}

#[test]
fn the_pipeline_measurement_takes_every_byte_once_and_names_what_differs() {
    assert_passes("pipeline", 7);
}

/// The tests beside the scripts of a folder of `benches/`.
fn assert_passes(folder: &str, test_count: usize) {
    let python = std::env::var("SLUICE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches").join(folder).join("tests.py");
    let output = Command::new(&python).arg(script).output().expect("`make test` installs python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(&format!("Ran {test_count} tests")), "{said}");
}
