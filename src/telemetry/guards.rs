//! Guards that tests take away, to see that a test notices: a guard that nothing misses proves nothing.
//!
//! # Contract
//! Only the cargo feature `faults` can take one away, by the environment variable `SLUICE_WITHOUT_GUARD`
//! (`fence`, or several: `swap,exclusion`), read once. In default and release builds every guard stands, nothing of
//! this is compiled, and the variable is refused as an unknown setting. `make mutants` takes away one after the other.

/// Every guard that stands in code.
pub const NAMES: &[&str] = &[
    "fence",               // a commit asks whether the fence is still its own (FENCE-1)
    "swap",                // a commit asks whether the position is where it begins (OFF-2)
    "whole",               // a micro-batch covers whole what it replaces, and just that (REPLAY-1)
    "claim",               // a short count of inserted claims is rolled back (CLAIM-1)
    "books",               // the ledgers are summed before the commit (BOOK-1)
    "tag",                 // an offset without this catalog's tag is an operator's
    "acknowledge", // an operator's order is acknowledged before it is carried out (REPLAY-2); as if it were slow
    "publish_before_hide", // what replaces a file is published before the file is hidden (FILE-2)
    "still_live",  // the loader asks, under its locks, whether the micro-batch is live
    "source_lock", // a load that retracts is alone on its source
    "order",       // an older row does not outrank a newer one (LOAD-2)
    "shadow",      // losers are kept (LOAD-2)
    "key_map",     // the time of a key is noted in the load that changes it (LOAD-2)
    "retract",     // rows that a replay does not make again go (LOAD-3)
    "dimension_lock", // a dimension has one writer at a time (LOAD-2, LOAD-5)
    "rollup_lock", // the cells of a rollup are locked before they are computed (LOAD-4)
    "digest",      // a replay is taken for unchanged only where its rows are those that were loaded (LOAD-3)
    "digest_count", // and where none of them is missing
    "one_by_one",  // micro-batches with masked rows are not joined with others
    "held_after_all", // a copy that met a held key is undone, and the keys are asked for
    "members_stand", // the newest known member is looked for in each load
    "days_lock",   // a day that is made whole is made by nobody else meanwhile
    "whole_days_lock", // a rollup or a key map is made while no day of its fact is being made whole
    "rebuild_windows", // a window of dedupe is read from the lake by whoever takes a topic partition over
    "awaited",     // a day of which more rows wait is not sealed
];

/// Guards of the catalog's schema, which the tests themselves drop.
pub const IN_THE_CATALOG: &[&str] = &[
    "exclusion", // the constraint one_live_batch_per_offset (OFF-1)
    "trigger",   // the triggers books_balance (BOOK-1)
];

/// `guarded!(name)`: whether the guard stands. True without the feature `faults`.
#[cfg(feature = "faults")]
macro_rules! guarded {
    ($name:literal) => {
        $crate::telemetry::guards::stands($name)
    };
}
#[cfg(not(feature = "faults"))]
macro_rules! guarded {
    ($name:literal) => {
        true
    };
}
pub(crate) use guarded;

/// `guarded_sql!(name, sql, part, instead)`: the statement, with another text in the place of its part `part` where
/// the guard is taken away. The statement itself without the feature `faults`.
#[cfg(feature = "faults")]
macro_rules! guarded_sql {
    ($name:literal, $sql:expr, $part:literal, $instead:literal) => {
        $crate::telemetry::guards::replaced($crate::telemetry::guarded!($name), $sql, $part, $instead)
    };
}
#[cfg(not(feature = "faults"))]
macro_rules! guarded_sql {
    ($name:literal, $sql:expr, $part:literal, $instead:literal) => {
        $sql
    };
}
pub(crate) use guarded_sql;

#[cfg(feature = "faults")]
pub use taken::{replaced, stands};

#[cfg(feature = "faults")]
mod taken {
    use std::collections::HashSet;
    use std::sync::OnceLock;

    use super::{IN_THE_CATALOG, NAMES};

    /// Whether the guard was left where it is.
    pub fn stands(name: &str) -> bool {
        static TAKEN: OnceLock<HashSet<String>> = OnceLock::new();
        let taken = TAKEN.get_or_init(|| {
            let text = std::env::var("SLUICE_WITHOUT_GUARD").unwrap_or_default();
            let names: HashSet<String> = text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            for name in &names {
                let is_known = NAMES.iter().chain(IN_THE_CATALOG).any(|known| known == name);
                assert!(is_known, "SLUICE_WITHOUT_GUARD names `{name}`, which is no guard");
            }
            names
        });
        !taken.contains(name)
    }

    pub fn replaced(stands: bool, sql: &'static str, part: &str, instead: &str) -> &'static str {
        assert!(sql.contains(part), "the statement has no part `{part}`: {sql}");
        // as long as the process lives, in test builds alone
        if stands { sql } else { sql.replace(part, instead).leak() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    fn uses(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                uses(&path, found);
            } else if path.file_name().is_some_and(|name| name != "guards.rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                for start in ["guarded!(", "guarded_sql!("] {
                    for (at, _) in text.match_indices(start) {
                        let name = text[at + start.len()..].trim_start().strip_prefix('"').expect("a literal");
                        found.insert(name.split_once('"').expect("a literal ends").0.to_owned());
                    }
                }
            }
        }
    }

    #[test]
    fn the_list_names_every_guard_and_no_other() {
        let mut found = BTreeSet::new();
        uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert_eq!(found, NAMES.iter().map(|name| (*name).to_owned()).collect());
    }
}
