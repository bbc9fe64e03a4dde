//! What is wrong with a configuration: where, what was expected, what to write instead.
//!
//! All problems are collected, so that one run of `sluice validate` shows them all.

use std::fmt;
use std::ops::Deref;
use std::path::PathBuf;

use crate::error::ErrorKind;

/// Where a value was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Line and column count from 1, columns in characters; 0 and 0 mean the file as a whole.
    File { path: PathBuf, line: u32, column: u32 },
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
    /// Given nowhere: a missing setting.
    Nowhere,
}

impl fmt::Display for Place {
    /// `file:line:column`, as compilers print it and editors jump to it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Nowhere => f.write_str("settings"),
        }
    }
}

/// One problem. Its message never holds the value of a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{place}: {message}{}", help_line(help.as_deref()))]
    Invalid {
        place: Place,
        message: String,
        /// What was expected, or what to write instead.
        help: Option<String>,
    },
    #[error("{}: cannot be read", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

impl ConfigError {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }

    pub fn place(&self) -> Place {
        match self {
            Self::Invalid { place, .. } => place.clone(),
            Self::Read { path, .. } => Place::File { path: path.clone(), line: 0, column: 0 },
        }
    }

    /// Without place and help.
    pub fn message(&self) -> String {
        match self {
            Self::Invalid { message, .. } => message.clone(),
            Self::Read { source, .. } => format!("cannot be read: {source}"),
        }
    }

    pub fn help(&self) -> Option<&str> {
        match self {
            Self::Invalid { help, .. } => help.as_deref(),
            Self::Read { .. } => None,
        }
    }
}

fn help_line(help: Option<&str>) -> String {
    help.map(|help| format!("\n  help: {help}")).unwrap_or_default()
}

/// Everything that is wrong, ordered by place; never empty.
#[derive(Debug)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Deref for ConfigErrors {
    type Target = [ConfigError];

    fn deref(&self) -> &[ConfigError] {
        &self.0
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", crate::error::chain(error))?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The known name that a misspelt one most likely means.
pub(super) fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| {
            let name_lower = name.to_lowercase();
            let edits = strsim::damerau_levenshtein(&wrong, &name_lower);
            // One part left off or put on too many, as `occurred` for `occurred_at`, is a near miss as well.
            let shares_start = wrong.len() >= 4 && (name_lower.starts_with(&wrong) || wrong.starts_with(&name_lower));
            (if shares_start { edits.min(2) } else { edits }, name)
        })
        .filter(|(edits, name)| *edits <= 1 + name.len().min(wrong.len()) / 3)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// `did you mean `a`? columns: a, b, c`
pub(super) fn did_you_mean<'a>(wrong: &str, what: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`? {what}: {list}"),
        None => format!("{what}: {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_name_is_found_for_typos_and_not_for_strangers() {
        let known = ["occurred_at", "amount", "currency", "user_id"];
        assert_eq!(nearest("amuont", known), Some("amount"));
        assert_eq!(nearest("curency", known), Some("currency"));
        assert_eq!(nearest("occurred", known), Some("occurred_at"));
        assert_eq!(nearest("AMOUNT", known), Some("amount"));
        assert_eq!(nearest("zzz", known), None);
    }
}
