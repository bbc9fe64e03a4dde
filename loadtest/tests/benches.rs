//! The scripts of `benches/`: what they say must be believable.

use std::path::Path;
use std::process::Command;

#[test]
fn the_staging_measurement_counts_everything_and_refuses_ratios_where_engines_differ() {
    let python = std::env::var("SLUICE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/staging/tests.py");
    let output = Command::new(&python).arg(script).output().expect("`make test` installs python3");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Ran 10 tests"), "{said}");
}
