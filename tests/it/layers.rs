//! The shape of the code: stages never import each other, files and functions stay short.

use std::path::{Path, PathBuf};

/// In the order of the data flow.
const STAGES: &[&str] = &["source", "decode", "transform", "resolve", "stage", "commit", "publish", "load"];
const SHARED: &[&str] = &["types", "error", "config", "telemetry", "client", "catalog"];
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("source is UTF-8");
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), &mut found);
    found
}

/// Modules of the crate that a source names: `crate::x`, also in `use crate::{x, y}` lists.
fn imported(text: &str) -> Vec<String> {
    let code: String = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        let list = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(rest, |(list, _)| list);
        let items = if rest.starts_with('{') { list.split(',').collect::<Vec<_>>() } else { vec![rest] };
        for item in items {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            names.push(name);
        }
    }
    names
}

fn forbidden(stage: &str, text: &str) -> Vec<String> {
    let allowed = |name: &str| name == stage || SHARED.contains(&name);
    imported(text)
        .into_iter()
        .filter(|name| !allowed(name) && name.chars().next().is_some_and(char::is_lowercase))
        .collect()
}

#[test]
fn stages_import_only_what_they_share() {
    for stage in STAGES {
        for (path, text) in sources(&format!("src/{stage}")) {
            assert_eq!(forbidden(stage, &text), Vec::<String>::new(), "{}", path.display());
        }
    }
}

#[test]
fn an_import_of_another_stage_is_seen() {
    assert_eq!(forbidden("decode", "use crate::stage::encode;"), ["stage"]);
    assert_eq!(forbidden("decode", "use crate::{types::X, pipeline::run};"), ["pipeline"]);
    assert_eq!(forbidden("decode", "// crate::stage\nuse crate::types::X;"), Vec::<String>::new());
}

#[test]
fn the_map_declares_the_stages_in_the_order_of_the_flow() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("readable");
    let places: Vec<usize> =
        STAGES.iter().map(|stage| map.find(&format!("pub mod {stage};")).expect("declared")).collect();
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn files_stay_short() {
    for folder in ["src", "loadtest/src", "tests"] {
        for (path, text) in sources(folder) {
            let lines = text.lines().count();
            assert!(lines <= FILE_LINES_MAX, "{} has {lines} lines", path.display());
        }
    }
}

/// Functions by indentation, as rustfmt leaves them: from `fn` to the brace that closes at its depth.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (first, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) fn ",
            "pub(crate) fn ",
            "pub(super) async fn ",
            "pub(crate) async fn ",
        ]
        .iter()
        .any(|start| trimmed.starts_with(start));
        if !is_function {
            continue;
        }
        let indent = &line[..line.len() - trimmed.len()];
        let end = format!("{indent}}}");
        let length = lines[first..]
            .iter()
            .position(|other| *other == end || (other.starts_with(indent) && other.ends_with('}') && *other == *line));
        if let Some(length) = length.filter(|length| *length + 1 > FUNCTION_LINES_MAX) {
            found.push((trimmed.to_owned(), length + 1));
        }
    }
    found
}

#[test]
fn functions_stay_short() {
    for folder in ["src", "loadtest/src", "tests"] {
        for (path, text) in sources(folder) {
            let reasoned = text.contains("clippy::too_many_lines, reason");
            assert!(reasoned || long_functions(&text).is_empty(), "{}: {:?}", path.display(), long_functions(&text));
        }
    }
}

#[test]
fn a_long_function_is_seen() {
    let long = format!("fn long() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(long_functions(&long).len(), 1);
    let short = format!("fn short() {{\n{}}}\n", "    step();\n".repeat(FUNCTION_LINES_MAX - 2));
    assert!(long_functions(&short).is_empty());
}
