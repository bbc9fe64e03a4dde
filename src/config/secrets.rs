//! Keys of `hash` steps: from the environment or from files, never from a YAML file.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;

use super::check_connector::is_name;
use super::error::{ConfigError, Place};
use super::yaml::Node;
use super::yaml::Step::Key;

const PREFIX: &str = "SLUICE_SECRETS__";
const FILE_SUFFIX: &str = "__FILE";
/// A shorter key can be guessed, and with it whom a hash belongs to.
const KEY_BYTES_MIN: usize = 16;

/// Whether a variable of the environment holds a key itself.
pub(super) fn is_key(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|rest| !rest.is_empty() && !rest.ends_with(FILE_SUFFIX))
}

/// The key's name, where a variable names its file.
pub(super) fn of_file(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PREFIX)?.strip_suffix(FILE_SUFFIX)?;
    (!rest.is_empty()).then(|| rest.to_lowercase())
}

/// The environment goes before files. Problems name keys and say nothing of what they are.
pub(super) fn read(
    env: Vec<(String, String)>,
    files: BTreeMap<String, String>,
    path: &Path,
    root: &Node,
    problems: &mut Vec<ConfigError>,
) -> BTreeMap<String, SecretString> {
    let mut keys = BTreeMap::new();
    let mut add = |place: Place, name: String, key: &str| {
        let (message, help) = if !is_name(&name, &['_']) || name.contains("__") {
            let help = "lower-case letters, digits and single underscores, beginning with a letter".to_owned();
            (format!("`{name}` cannot be the name of a key"), help)
        } else if key.len() < KEY_BYTES_MIN {
            let help = format!("at least {KEY_BYTES_MIN} bytes, such as `openssl rand -hex 32` gives");
            (format!("key `{name}` is too short"), help)
        } else {
            keys.insert(name, SecretString::from(key));
            return;
        };
        problems.push(ConfigError::Invalid { place, message, help: Some(help) });
    };
    let mut unread = Vec::new();
    for (name, file) in files {
        let place = root.find(&[Key("secrets"), Key(&name), Key("file")]).origin.place(path);
        match std::fs::read_to_string(&file) {
            Ok(text) => add(place, name, text.trim_end()),
            Err(error) => {
                let message = format!("could not read the file of key `{name}`: {error}");
                unread.push(ConfigError::Invalid { place, message, help: None });
            }
        }
    }
    for (variable, key) in env.into_iter().filter(|(_, key)| !key.is_empty()) {
        let name = variable[PREFIX.len()..].to_lowercase();
        add(Place::Environment(variable), name, &key);
    }
    problems.extend(unread);
    keys
}
