//! A folder of YAML files, one thing each: read in the order of their names, all problems collected.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::error::{ConfigError, Place};
use super::{json_schema, shape, yaml};

/// A file that could be read into its raw type, its shape's problems reported already.
pub(super) struct Document<T> {
    pub(super) path: PathBuf,
    pub(super) root: yaml::Node,
    pub(super) raw: T,
}

pub(super) fn read_folder<T: DeserializeOwned + JsonSchema>(
    folder: &Path,
    problems: &mut Vec<ConfigError>,
) -> Vec<Document<T>> {
    let schema = json_schema::of::<T>();
    let mut documents = Vec::new();
    for path in yaml_files(folder, problems) {
        match std::fs::read_to_string(&path) {
            Ok(text) => documents.extend(read_text(path, &text, &schema, problems)),
            Err(source) => problems.push(ConfigError::Read { path, source }),
        }
    }
    documents
}

/// `None` where its shape is so wrong that nothing more can be said about it.
pub(super) fn read_text<T: DeserializeOwned>(
    path: PathBuf,
    text: &str,
    schema: &serde_json::Value,
    problems: &mut Vec<ConfigError>,
) -> Option<Document<T>> {
    let mut root = yaml::parse(&path, text).map_err(|error| problems.push(error)).ok()?;
    let before = problems.len();
    shape::check(&path, &mut root, schema, problems);
    match serde_json::from_value(root.to_json()) {
        Ok(raw) => Some(Document { path, root, raw }),
        Err(error) => {
            // The shape's problems say it better; without one, the schema and the type disagree.
            if problems.len() == before {
                let place = Place::File { path, line: 0, column: 0 };
                problems.push(ConfigError::Invalid { place, message: error.to_string(), help: None });
            }
            None
        }
    }
}

fn yaml_files(folder: &Path, problems: &mut Vec<ConfigError>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>) {
        Ok(entries) => entries,
        Err(source) => {
            problems.push(ConfigError::Read { path: folder.into(), source });
            return Vec::new();
        }
    };
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml" || end == "yml") && path.is_file())
        .collect();
    files.sort();
    if files.is_empty() {
        let place = Place::File { path: folder.into(), line: 0, column: 0 };
        problems.push(ConfigError::Invalid {
            place,
            message: "there is no .yaml file in this folder".into(),
            help: None,
        });
    }
    files
}
