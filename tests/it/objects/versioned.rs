//! Buckets that keep versions.

use aws_sdk_s3::types::BucketVersioningStatus;
use futures::future::join_all;
use sluice::config::KeyEncoding::Auto;
use sluice::source::object_reader::ReadOutcome;

use super::{Store, announced};

/// Reads, claims as a commit would, and tells what was read.
async fn read_and_claim(store: &Store, key: &str, etag: Option<&str>, version_id: Option<&str>) -> String {
    match store.reader.read(&announced(&store.bucket, key, etag, version_id), Auto).await.expect("the store answers") {
        ReadOutcome::Read { version, bytes, .. } => {
            assert!(store.claims.claim(&version.location, &version.version), "claimed twice");
            format!("{} {}", version.version, String::from_utf8_lossy(&bytes))
        }
        ReadOutcome::Duplicate => "duplicate".into(),
        ReadOutcome::Stale => "stale".into(),
        ReadOutcome::Missing => "missing".into(),
        ReadOutcome::TooLarge { .. } => "too large".into(),
        ReadOutcome::Head { .. } => "only the beginning".into(),
        ReadOutcome::Refused(answer) => format!("refused: {answer}"),
    }
}

/// A, B, A; gives the two ETags and the three version ids.
async fn write_a_b_a(store: &Store, key: &str) -> (String, String, [String; 3]) {
    let (a, first) = store.put(key, "A").await;
    let (b, second) = store.put(key, "B").await;
    let (again, third) = store.put(key, "A").await;
    assert_eq!(a, again);
    (a, b, [first, second, third].map(|id| id.expect("the bucket keeps versions")))
}

#[tokio::test]
async fn without_version_ids_each_version_is_read_once_in_any_order() {
    let store = Store::versioned().await;
    for (key, order) in
        [("in-order", ["a", "b", "a"]), ("out-of-order", ["b", "a", "a"]), ("reversed", ["a", "a", "b"])]
    {
        let (a, b, [v1, v2, v3]) = write_a_b_a(&store, key).await;
        let mut read = Vec::new();
        for which in order {
            let etag = if which == "a" { &a } else { &b };
            read.push(read_and_claim(&store, key, Some(etag), None).await);
        }
        read.sort_unstable();
        let mut wanted = vec![format!("{v1} A"), format!("{v2} B"), format!("{v3} A")];
        wanted.sort_unstable();
        assert_eq!(read, wanted, "{key}");
        for etag in [&a, &b] {
            assert_eq!(read_and_claim(&store, key, Some(etag), None).await, "duplicate", "{key}");
        }
    }
}

#[tokio::test]
async fn the_oldest_version_with_the_etag_comes_first() {
    let store = Store::versioned().await;
    let (a, _, [v1, _, v3]) = write_a_b_a(&store, "k").await;
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{v1} A"));
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{v3} A"));
}

#[tokio::test]
async fn with_version_ids_each_version_is_read_once_in_any_order() {
    let store = Store::versioned().await;
    let (a, b, [v1, v2, v3]) = write_a_b_a(&store, "k").await;
    for (etag, id, content) in [(&a, &v3, "A"), (&a, &v1, "A"), (&b, &v2, "B")] {
        assert_eq!(read_and_claim(&store, "k", Some(etag), Some(id)).await, format!("{id} {content}"));
        assert_eq!(read_and_claim(&store, "k", Some(etag), Some(id)).await, "duplicate");
    }
}

#[tokio::test]
async fn announcements_in_flight_take_distinct_versions() {
    let store = Store::versioned().await;
    let mut etag = String::new();
    for _ in 0..5 {
        etag = store.put("k", "same").await.0;
    }
    let event = announced(&store.bucket, "k", Some(&etag), None);
    // nothing is claimed before all of them are read: only reservations tell them apart
    let outcomes = join_all((0..5).map(|_| store.reader.read(&event, Auto))).await;
    let mut versions: Vec<&str> = outcomes
        .iter()
        .map(|outcome| match outcome {
            Ok(ReadOutcome::Read { version, .. }) => version.version.as_str(),
            other => panic!("read expected, got {other:?}"),
        })
        .collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions.len(), 5);
    // one more than there are versions: the oldest reserved one again, for the commit to settle
    let extra = store.reader.read(&event, Auto).await.expect("the store answers");
    let ReadOutcome::Read { version, reservation, .. } = extra else { panic!("read expected, got {extra:?}") };
    assert!(versions.contains(&version.version.as_str()));
    drop((outcomes, reservation));
    // given up without a commit: all free again, the oldest first
    let listed = store.s3.list_versions(&store.bucket, "k").await.expect("versions");
    let oldest = &listed.last().expect("five of them").version_id;
    assert_eq!(read_and_claim(&store, "k", Some(&etag), None).await, format!("{oldest} same"));
}

#[tokio::test]
async fn what_no_version_matches_is_stale_and_what_never_was_is_missing() {
    let store = Store::versioned().await;
    let (_, id) = store.put("k", "A").await;
    let id = id.expect("the bucket keeps versions");
    assert_eq!(read_and_claim(&store, "k", Some("00000000000000000000000000000000"), None).await, "stale");
    assert_eq!(read_and_claim(&store, "other", Some("00000000000000000000000000000000"), None).await, "missing");
    assert_eq!(read_and_claim(&store, "other", None, Some(&id)).await, "missing");
    assert_eq!(read_and_claim(&store, "k", None, Some("nonsense")).await, "missing");
}

#[tokio::test]
async fn a_deleted_object_is_still_read_by_its_version() {
    let store = Store::versioned().await;
    let (a, id) = store.put("k", "A").await;
    store.s3.delete(&store.bucket, "k").await.expect("a delete marker");
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{} A", id.expect("versions")));
}

#[tokio::test]
async fn other_keys_with_the_same_prefix_do_not_matter() {
    let store = Store::versioned().await;
    let (etag, id) = store.put("k", "A").await;
    for key in ["k.1", "k0", "kk"] {
        store.put(key, "A").await;
    }
    assert_eq!(read_and_claim(&store, "k", Some(&etag), None).await, format!("{} A", id.expect("versions")));
    assert_eq!(read_and_claim(&store, "k", Some(&etag), None).await, "duplicate");
}

#[tokio::test]
async fn what_was_written_before_versions_were_kept_is_named_by_content_and_time() {
    let store = Store::unversioned().await;
    let (a, _) = store.put("k", "A").await;
    store.set_versioning(BucketVersioningStatus::Enabled).await;
    let (b, id) = store.put("k", "B").await;
    let read = read_and_claim(&store, "k", Some(&a), None).await;
    assert!(read.starts_with(&format!("{a}@20")) && read.ends_with("Z A"), "{read}");
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, "duplicate");
    assert_eq!(read_and_claim(&store, "k", Some(&b), None).await, format!("{} B", id.expect("versions")));
}

#[tokio::test]
async fn versions_that_begin_after_the_first_look_are_found() {
    let store = Store::unversioned().await;
    let (x, _) = store.put("x", "X").await;
    // the reader now remembers that the bucket keeps no versions
    assert!(read_and_claim(&store, "x", Some(&x), None).await.ends_with(" X"));
    store.set_versioning(BucketVersioningStatus::Enabled).await;
    let (a, b, [v1, v2, v3]) = write_a_b_a(&store, "k").await;
    assert_eq!(read_and_claim(&store, "k", Some(&b), None).await, format!("{v2} B"));
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{v1} A"));
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{v3} A"));
}

#[tokio::test]
async fn where_versions_are_suspended_old_ones_are_found_and_new_ones_overwrite() {
    let store = Store::versioned().await;
    let (a, id) = store.put("k", "A").await;
    store.set_versioning(BucketVersioningStatus::Suspended).await;
    let (b, _) = store.put("k", "B").await;
    let (c, _) = store.put("k", "C").await;
    assert_eq!(read_and_claim(&store, "k", Some(&b), None).await, "stale");
    assert!(read_and_claim(&store, "k", Some(&c), None).await.ends_with("Z C"));
    assert_eq!(read_and_claim(&store, "k", Some(&a), None).await, format!("{} A", id.expect("versions")));
}
