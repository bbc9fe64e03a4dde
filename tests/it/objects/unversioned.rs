//! Buckets that keep no versions.

use bytes::Bytes;
use sluice::client::rate::RequestRate;
use sluice::client::s3::{FailureClass, S3Client};
use sluice::config::KeyEncoding::Auto;
use sluice::error::{ErrorKind, chain};
use sluice::source::object_reader::{ObjectReader, Opened, ReadError, ReadOutcome};

use super::{MemoryClaims, Store, announced, endpoint, limits};

async fn read(store: &Store, key: &str, etag: Option<&str>) -> ReadOutcome {
    store.reader.read(&announced(&store.bucket, key, etag, None), Auto).await.expect("the store answers")
}

#[tokio::test]
async fn a_b_a_is_read_as_it_comes_and_duplicates_are_told() {
    let store = Store::unversioned().await;
    let (a, _) = store.put("k", "A").await;
    let mut versions = Vec::new();
    for (content, announced_etag) in [("A", a.clone()), ("B", String::new()), ("A", a.clone())] {
        let etag = if versions.is_empty() { announced_etag } else { store.put_a_second_later("k", content).await };
        let ReadOutcome::Read { version, bytes, .. } = read(&store, "k", Some(&etag)).await else {
            panic!("{content} is there and unclaimed")
        };
        assert_eq!((bytes, version.size_bytes), (Bytes::copy_from_slice(content.as_bytes()), 1));
        assert!(version.version.starts_with(&format!("{etag}@")) && version.version.ends_with('Z'));
        assert!(store.claims.claim(&version.location, &version.version), "claimed twice");
        versions.push(version.version);
        assert!(matches!(read(&store, "k", Some(&etag)).await, ReadOutcome::Duplicate));
        assert!(matches!(read(&store, "k", None).await, ReadOutcome::Duplicate));
    }
    versions.dedup();
    assert_eq!(versions.len(), 3);
}

#[tokio::test]
async fn what_was_overwritten_is_stale() {
    let store = Store::unversioned().await;
    let (a, _) = store.put("k", "A").await;
    store.put("k", "B").await;
    assert!(matches!(read(&store, "k", Some(&a)).await, ReadOutcome::Stale));
}

#[tokio::test]
async fn what_is_not_there_is_missing() {
    let store = Store::unversioned().await;
    assert!(matches!(read(&store, "nothing", None).await, ReadOutcome::Missing));
    let (a, _) = store.put("k", "A").await;
    store.s3.delete(&store.bucket, "k").await.expect("it is deleted");
    assert!(matches!(read(&store, "k", Some(&a)).await, ReadOutcome::Missing));
    let too_long = "k".repeat(3000);
    assert!(matches!(read(&store, &too_long, None).await, ReadOutcome::Missing));
}

#[tokio::test]
async fn an_object_that_shows_a_little_late_is_read() {
    let store = Store::unversioned().await;
    let event = announced(&store.bucket, "late", None, None);
    let (outcome, _) = tokio::join!(store.reader.read(&event, Auto), async {
        // after the first look, which this thread has begun
        tokio::task::yield_now().await;
        store.put("late", "A").await
    });
    assert!(matches!(outcome, Ok(ReadOutcome::Read { .. })), "{outcome:?}");
}

#[tokio::test]
async fn an_empty_object_is_read() {
    let store = Store::unversioned().await;
    let (etag, _) = store.put("empty", "").await;
    let ReadOutcome::Read { version, bytes, .. } = read(&store, "empty", Some(&etag)).await else {
        panic!("it is there")
    };
    assert_eq!((version.size_bytes, bytes.len()), (0, 0));
}

#[tokio::test]
async fn a_large_object_comes_whole_and_a_too_large_one_with_its_first_mebibyte() {
    let store = Store::unversioned().await;
    let limit = usize::try_from(limits().object_bytes_max).expect("small");
    let content = "a line\n!".repeat(limit / 8);
    store.put("fits", &content).await;
    store.put("does-not", &format!("{content}x")).await;
    let ReadOutcome::Read { bytes, .. } = read(&store, "fits", None).await else { panic!("it fits") };
    assert!(bytes == content.as_bytes());
    let ReadOutcome::TooLarge { version, head, .. } = read(&store, "does-not", None).await else {
        panic!("it is one byte too large")
    };
    assert_eq!(version.size_bytes, limit as u64 + 1);
    assert!(head == content.as_bytes()[..1 << 20]);
}

#[tokio::test]
async fn memory_can_be_reserved_between_the_headers_and_the_body() {
    let store = Store::unversioned().await;
    store.put("k", "hello").await;
    let event = announced(&store.bucket, "k", None, None);
    let Opened::Ready(object) = store.reader.open(&event, Auto, None).await.expect("the store answers") else {
        panic!("it is there")
    };
    assert_eq!(object.wanted_bytes(), 5);
    assert!(matches!(object.read().await, Ok(ReadOutcome::Read { bytes, .. }) if bytes == "hello"));
}

#[tokio::test]
async fn a_missing_bucket_and_wrong_credentials_are_transient_and_say_what_to_do() {
    let store = Store::unversioned().await;
    let nowhere = announced("no-such-bucket-anywhere", "k", None, None);
    let error = store.reader.read(&nowhere, Auto).await.expect_err("the bucket does not exist");
    assert_eq!(error.kind(), ErrorKind::Transient);
    let text = chain(&error);
    assert!(
        text.contains("bucket `no-such-bucket-anywhere` does not exist at http") && text.contains("create it"),
        "{text}"
    );

    let mut wrong_secret = endpoint();
    wrong_secret.secret_access_key = "wrong".to_owned().into();
    let mut wrong_user = endpoint();
    wrong_user.access_key_id = "nobody".into();
    for (wrong, setting) in [(wrong_secret, "secret_access_key"), (wrong_user, "access_key_id")] {
        let s3 = S3Client::new("raw", &wrong, RequestRate::default());
        let claims: &'static MemoryClaims = Box::leak(Box::default());
        let reader = ObjectReader::new(s3, claims, &limits());
        for version_id in [None, Some("01M84AX5S18MJBD5TS7DTCN30M")] {
            let event = announced(&store.bucket, "k", None, version_id);
            let error = reader.read(&event, Auto).await.expect_err("nobody may");
            assert_eq!(error.kind(), ErrorKind::Transient);
            assert!(matches!(&error, ReadError::Store(error) if error.class() == FailureClass::Denied));
            assert!(chain(&error).contains(&format!("correct s3.raw.{setting}")), "{}", chain(&error));
        }
    }
}
