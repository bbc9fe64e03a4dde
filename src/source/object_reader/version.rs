//! Which version an announcement without a version id means. Pure.

use std::collections::HashSet;

use chrono::{DateTime, SecondsFormat, Utc};

use crate::client::s3::ListedVersion;

/// A version that an announcement can mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    /// As claims name it.
    pub(super) version: String,
    pub(super) listed: &'a ListedVersion,
}

/// Identity of what has no version id. Whole seconds, because the header of a GET has no finer and a
/// listing may: both must name the same thing the same way.
pub(super) fn identity(etag: &str, last_modified: DateTime<Utc>) -> String {
    format!("{etag}@{}", last_modified.to_rfc3339_opts(SecondsFormat::Secs, true))
}

/// Those of a key's versions (newest first) that have the ETag, oldest first; all where no ETag is known.
pub(super) fn matching<'a>(listed: &'a [ListedVersion], etag: Option<&str>) -> Vec<Candidate<'a>> {
    listed
        .iter()
        .rev()
        .filter(|version| etag.is_none_or(|etag| etag == version.etag))
        .map(|listed| {
            let version = match listed.version_id.as_str() {
                "null" => identity(&listed.etag, listed.last_modified),
                version_id => version_id.to_owned(),
            };
            Candidate { version, listed }
        })
        .collect()
}

/// The oldest that is neither claimed nor being read; else the oldest that is not claimed (whoever reads it
/// may yet fail, and if not, the commit finds it claimed twice); `None` where all are claimed.
pub(super) fn choose<'c, 'a>(
    candidates: &'c [Candidate<'a>],
    claimed: &HashSet<String>,
    reserved: &HashSet<String>,
) -> Option<&'c Candidate<'a>> {
    let mut unclaimed = candidates.iter().filter(|candidate| !claimed.contains(&candidate.version)).peekable();
    let oldest = unclaimed.peek().copied();
    unclaimed.find(|candidate| !reserved.contains(&candidate.version)).or(oldest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(version_id: &str, etag: &str, seconds: i64) -> ListedVersion {
        let last_modified = DateTime::from_timestamp(seconds, 123_000_000).expect("in range");
        ListedVersion { version_id: version_id.into(), etag: etag.into(), last_modified, size_bytes: 1 }
    }

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_oldest_free_version_with_the_etag_is_taken() {
        let a_b_a = [listed("v3", "a", 3), listed("v2", "b", 2), listed("v1", "a", 1)];
        let candidates = matching(&a_b_a, Some("a"));
        let taken = |claimed: &[&str], reserved: &[&str]| {
            choose(&candidates, &set(claimed), &set(reserved)).map(|candidate| candidate.version.as_str())
        };
        assert_eq!(taken(&[], &[]), Some("v1"));
        assert_eq!(taken(&["v1"], &[]), Some("v3"));
        assert_eq!(taken(&[], &["v1"]), Some("v3"));
        assert_eq!(taken(&["v3"], &["v1"]), Some("v1"));
        assert_eq!(taken(&[], &["v1", "v3"]), Some("v1"));
        assert_eq!(taken(&["v1", "v3"], &[]), None);
        assert!(matching(&a_b_a, Some("c")).is_empty());
        let any: Vec<String> = matching(&a_b_a, None).into_iter().map(|candidate| candidate.version).collect();
        assert_eq!(any, ["v1", "v2", "v3"]);
    }

    #[test]
    fn null_versions_are_named_by_content_and_time() {
        let versions = [listed("null", "a", 1)];
        assert_eq!(matching(&versions, Some("a"))[0].version, "a@1970-01-01T00:00:01Z");
        assert_eq!(identity("a", versions[0].last_modified), "a@1970-01-01T00:00:01Z");
    }

    proptest! {
        #[test]
        fn announcements_in_flight_take_distinct_versions_while_there_are_any(
            count in 1_usize..8, claimed in prop::collection::hash_set(0_usize..8, 0..8)
        ) {
            let versions: Vec<ListedVersion> =
                (0..count).rev().map(|index| listed(&format!("v{index}"), "a", index as i64)).collect();
            let candidates = matching(&versions, Some("a"));
            let claimed: HashSet<String> = claimed.into_iter().map(|index| format!("v{index}")).collect();
            let free = candidates.iter().filter(|candidate| !claimed.contains(&candidate.version)).count();
            let mut reserved = HashSet::new();
            for _ in 0..free {
                let chosen = choose(&candidates, &claimed, &reserved).expect("one is free");
                prop_assert!(!claimed.contains(&chosen.version));
                prop_assert!(reserved.insert(chosen.version.clone()));
            }
            prop_assert_eq!(choose(&candidates, &claimed, &reserved).is_some(), free > 0);
        }
    }
}
