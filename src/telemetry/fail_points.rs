//! Named places where tests break a process: it dies there, freezes there, lingers, or gets an error.
//!
//! # Contract
//! Only the cargo feature `faults` brings them into being; default and release builds have neither the
//! points nor the endpoint. A point does nothing until it is armed: at start by the environment variable
//! `FAILPOINTS` (`commit.swapped=2*off->1*return(abort);…`, the grammar of the crate `fail`), while the process
//! runs by `PUT /fail-points/<name>` with the action as the body, on the address of `/metrics`.
//!
//! | action | does |
//! |---|---|
//! | `return(abort)` | ends the process at once, as `kill -9` would, but at this very place |
//! | `return(freeze)` | stops the whole process, heartbeats included, until it gets SIGCONT |
//! | `return(linger:MS)` | stays here for so long, so that a test can break something else meanwhile |
//! | `return(error)` | returns an error that a server which does not answer would cause; only at points of [`FALLIBLE`] |
//!
//! A point that tells an object's key acts for some alone where the action says so: `return(abort@poison)` ends the
//! process at objects with `poison` in their keys.
//!
//! Before it acts a point says so in the log: `fail point reached`, with `point` and `action`.

/// Every fail point. A name says what has just happened, or what is about to.
pub const NAMES: &[&str] = &[
    "take_over.fence_installed", // the older owner is shut out, the position is not read yet
    "object.decoding",           // an object or a record is in memory, its rows are not; tells the object's key
    "batch.objects_read",        // rows are in memory alone
    "batch.one_put",             // one file lies in `_pending/`, others of the micro-batch may not
    "batch.all_put",             // all files lie in `_pending/`, nothing names them
    "chunk.recorded",            // a chunk of a large object is in the catalog, but nobody knows
    "commit.swapped",            // the position is moved in a transaction that is still open
    "commit.before_commit",      // everything is written, nothing is committed
    "commit.committed",          // the micro-batch is true, but nobody knows
    "offset.before_commit",      // the catalog is ahead of the group's offset
    "publish.copied",            // the file lies in `data/` and in `_pending/`, the catalog calls it pending
    "publish.marked",            // published; the pending copy is still there
    "outbox.sent",               // downstream has the manifests, the catalog would send them again
    "load.copied",               // rows in temporary tables of an open transaction
    "load.locked",               // and the locks of their shards held
    "load.before_commit",        // everything is written, nothing is committed
    "load.committed",            // rows and `load_state` are there, the catalog calls the micro-batch unloaded
];

/// Those that can return an error.
pub const FALLIBLE: &[&str] = &[
    "take_over.fence_installed",
    "chunk.recorded",
    "commit.swapped",
    "commit.before_commit",
    "commit.committed",
    "publish.copied",
    "publish.marked",
    "outbox.sent",
    "load.copied",
    "load.locked",
    "load.before_commit",
    "load.committed",
];

/// `fail_point!(name)`, or `fail_point!(name, wrap)` where `wrap` makes the function's error of a [`CatalogError`].
/// `fail_point!(name; key)` tells the key of an object. Nothing without the feature `faults`.
///
/// [`CatalogError`]: crate::catalog::CatalogError
#[cfg(feature = "faults")]
macro_rules! fail_point {
    ($name:literal) => {{
        $crate::telemetry::fail_points::hit($name, "");
    }};
    ($name:literal; $key:expr) => {{
        $crate::telemetry::fail_points::hit($name, $key);
    }};
    ($name:literal, $wrap:expr) => {{
        if $crate::telemetry::fail_points::hit($name, "") {
            let unreachable = $crate::client::postgres::PostgresError::ConnectTimeout;
            return Err($wrap($crate::catalog::CatalogError::Connect(unreachable)));
        }
    }};
}
#[cfg(not(feature = "faults"))]
macro_rules! fail_point {
    ($($argument:tt)*) => {
        ()
    };
}
pub(crate) use fail_point;

#[cfg(feature = "faults")]
pub use armed::{arm_from_environment, endpoint, hit};

#[cfg(feature = "faults")]
mod armed {
    use std::process::Command;
    use std::time::Duration;

    use axum::Router;
    use axum::extract::Path;
    use axum::http::StatusCode;
    use axum::routing::put;

    use super::NAMES;

    /// Reads `FAILPOINTS`.
    pub fn arm_from_environment() {
        // dropping it would disarm everything
        std::mem::forget(fail::FailScenario::setup());
    }

    /// Does what the point is armed with. `true`: the caller returns an error.
    pub fn hit(name: &'static str, key: &str) -> bool {
        fail::fail_point!(name, |action| act(name, key, &action.unwrap_or_default()));
        false
    }

    fn act(name: &'static str, key: &str, action: &str) -> bool {
        let (action, wanted) = action.split_once('@').unwrap_or((action, ""));
        if !key.contains(wanted) {
            return false;
        }
        tracing::warn!(component = "faults", point = name, action, "fail point reached");
        match action.split_once(':') {
            Some(("linger", ms)) => std::thread::sleep(Duration::from_millis(ms.parse().unwrap_or_default())),
            _ if action == "abort" => std::process::abort(),
            _ if action == "freeze" => freeze(),
            _ => return action == "error",
        }
        false
    }

    /// SIGSTOP to ourselves: it has arrived before `kill` ends.
    fn freeze() {
        let _ = Command::new("kill").args(["-STOP", &std::process::id().to_string()]).status();
    }

    /// `PUT /fail-points/<name>`
    pub fn endpoint() -> Router {
        Router::new().route("/fail-points/{name}", put(arm))
    }

    async fn arm(Path(name): Path<String>, action: String) -> (StatusCode, String) {
        if !NAMES.contains(&name.as_str()) {
            return (StatusCode::NOT_FOUND, format!("no fail point {name}\n"));
        }
        match fail::cfg(name, &action) {
            Ok(()) => (StatusCode::OK, String::new()),
            Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Name, and whether it can return an error, of every use below `folder`.
    fn uses(folder: &Path, found: &mut Vec<(String, bool)>) {
        for entry in std::fs::read_dir(folder).expect("a folder of the repository") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                uses(&path, found);
            } else if path.file_name().is_some_and(|name| name != "fail_points.rs") {
                let text = std::fs::read_to_string(&path).unwrap_or_default();
                for (_, rest) in
                    text.match_indices("fail_point!(\"").map(|(at, start)| text[at..].split_at(start.len()))
                {
                    let (name, after) = rest.split_once('"').expect("a literal ends");
                    found.push((name.to_owned(), after.starts_with(',')));
                }
            }
        }
    }

    #[test]
    fn the_list_names_every_point_once_and_no_other() {
        let mut found = Vec::new();
        uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        let set = |names: &mut dyn Iterator<Item = &str>| names.map(ToOwned::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(set(&mut found.iter().map(|(name, _)| name.as_str())), set(&mut NAMES.iter().copied()));
        assert_eq!(found.len(), NAMES.len(), "each stands in one place: {found:?}");
        let fallible = &mut found.iter().filter(|(_, fallible)| *fallible).map(|(name, _)| name.as_str());
        assert_eq!(set(fallible), set(&mut FALLIBLE.iter().copied()));
    }
}
