//! `sluice validate`: what is shipped is sound, and what is broken is told with place and remedy.

use std::path::Path;

use sluice::cli::validate::{ValidateArgs, ValidateOutput, run};

/// Folders relative to the package's root, where cargo runs tests.
fn validate(connectors: &str, output: ValidateOutput) -> (u8, String) {
    let args = ValidateArgs { connectors: connectors.into(), topics: "topics".into(), output };
    let mut out = Vec::new();
    let code = run(&args, &mut out).expect("memory takes it");
    (code, String::from_utf8(out).expect("messages are text"))
}

#[test]
fn ten_broken_connectors_make_ten_messages() {
    let folder = "tests/fixtures/connectors";
    let (code, text) = validate(folder, ValidateOutput::Table);
    assert_eq!(code, 2);
    assert!(text.ends_with("10 problems in 10 files\n"), "{text}");
    for message in text.split("\n\n").filter(|message| message.starts_with(folder)) {
        let file = Path::new(message.split(':').next().unwrap()).file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(message.contains("\n  help: "), "{message}");
        insta::assert_snapshot!(file, message);
    }
}

#[test]
fn problems_are_there_for_programs_too() {
    let (code, text) = validate("tests/fixtures/connectors", ValidateOutput::Json);
    assert_eq!(code, 2);
    let printed: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(printed["problems"].as_array().unwrap().len(), 10);
    insta::assert_snapshot!("problem_as_json", format!("{:#}", printed["problems"][4]));
}

#[test]
fn the_shipped_connectors_have_no_problems() {
    let (code, text) = validate("connectors", ValidateOutput::Table);
    assert_eq!(code, 0, "{text}");
    insta::assert_snapshot!("shipped_connectors", text);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let (code, text) = validate("tests/fixtures/nowhere", ValidateOutput::Table);
    assert_eq!(code, 2);
    insta::assert_snapshot!("no_such_folder", text);
}
