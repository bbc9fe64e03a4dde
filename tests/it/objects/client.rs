//! The S3 client's own promises: conditions, checksums, copies, listings.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use sha2::{Digest, Sha256};
use sluice::client::s3::{Pin, Versioning};
use sluice::error::{ErrorKind, chain};

use super::Store;

const CONTENT: &[u8] = b"some bytes";

#[tokio::test]
async fn a_key_is_written_once_where_that_is_asked_for() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    let put = || s3.put(&bucket, "_pending/a/b.parquet", Bytes::from_static(CONTENT), None, true);
    let written = put().await.expect("it is new");
    let error = put().await.expect_err("it exists");
    assert!(error.is_precondition_failed(), "{}", chain(&error));
    let head = s3.head(&bucket, "_pending/a/b.parquet", Pin::default()).await.expect("it exists");
    assert_eq!((head.etag, head.size_bytes), (written.etag, CONTENT.len() as u64));
}

#[tokio::test]
async fn bytes_that_differ_from_their_checksum_are_refused() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    let right: [u8; 32] = Sha256::digest(CONTENT).into();
    s3.put(&bucket, "right", Bytes::from_static(CONTENT), Some(right), false).await.expect("the checksum matches");
    let error = s3.put(&bucket, "wrong", Bytes::from_static(CONTENT), Some([7; 32]), false).await;
    let error = error.expect_err("the checksum is another one");
    assert_eq!(error.kind(), ErrorKind::Transient, "{}", chain(&error));
    assert!(s3.head(&bucket, "wrong", Pin::default()).await.expect_err("nothing was written").is_missing());
    let head = s3.head(&bucket, "right", Pin::default()).await.expect("it exists");
    assert_eq!(head.sha256, Some(right));
}

#[tokio::test]
async fn a_copy_is_made_of_the_content_that_is_meant() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    let (from, to) = ("_pending/a b+c é%.parquet", "data/source=é/a b+c%2B.parquet");
    let written = s3.put(&bucket, from, Bytes::from_static(CONTENT), None, false).await.expect("it is written");
    let copied = s3.copy(&bucket, from, to, Some(&written.etag)).await.expect("the content is that");
    assert_eq!(copied.etag, written.etag);
    let body = s3.open(&bucket, to, Pin::default()).await.expect("it exists").read_all().await.expect("whole");
    assert_eq!(body, CONTENT);
    let error = s3.copy(&bucket, from, to, Some("00000000000000000000000000000000")).await.expect_err("other content");
    assert!(error.is_precondition_failed(), "{}", chain(&error));
    let error = s3.copy(&bucket, "nothing", to, None).await.expect_err("there is nothing");
    assert!(error.is_missing(), "{}", chain(&error));
}

#[tokio::test]
async fn deleting_twice_is_no_error() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    s3.put(&bucket, "k", Bytes::from_static(CONTENT), None, false).await.expect("it is written");
    s3.delete(&bucket, "k").await.expect("deleted");
    s3.delete(&bucket, "k").await.expect("nothing to delete");
    assert!(s3.open(&bucket, "k", Pin::default()).await.expect_err("it is gone").is_missing());
}

#[tokio::test]
async fn listings_go_on_over_pages() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    let put = |index: u32| {
        let (s3, bucket) = (s3.clone(), bucket.clone());
        async move { s3.put(&bucket, &format!("many/{index:04}"), Bytes::new(), None, false).await }
    };
    stream::iter(0..1005).map(put).buffer_unordered(32).try_collect::<Vec<_>>().await.expect("all are written");
    let page = s3.list_page(&bucket, "many/", None).await.expect("the first page");
    assert_eq!((page.objects.len(), page.next.is_some()), (1000, true));
    let keys: Vec<String> =
        s3.list(&bucket, "many/").map_ok(|object| object.key).try_collect().await.expect("all pages");
    assert_eq!(keys, (0..1005).map(|index| format!("many/{index:04}")).collect::<Vec<_>>());
    assert!(s3.list(&bucket, "none/").try_collect::<Vec<_>>().await.expect("an empty page").is_empty());
}

#[tokio::test]
async fn versions_of_one_key_are_listed_newest_first_over_pages() {
    let store = Store::versioned().await;
    let mut wanted = Vec::new();
    for index in 0..1003 {
        wanted.push(store.put("k", &index.to_string()).await.1.expect("the bucket keeps versions"));
    }
    store.put("k2", "another key").await;
    wanted.reverse();
    let listed = store.s3.list_versions(&store.bucket, "k").await.expect("versions");
    let listed: Vec<String> = listed.into_iter().map(|version| version.version_id).collect();
    assert_eq!(listed, wanted);
}

#[tokio::test]
async fn versioning_is_told() {
    let store = Store::unversioned().await;
    assert_eq!(store.s3.versioning(&store.bucket).await.expect("an answer"), Versioning::Off);
    let store = Store::versioned().await;
    assert_eq!(store.s3.versioning(&store.bucket).await.expect("an answer"), Versioning::Enabled);
}

#[tokio::test]
async fn a_bucket_is_checked_in_words() {
    let Store { s3, bucket, .. } = Store::unversioned().await;
    s3.check_bucket(&bucket).await.expect("it exists");
    let error = s3.check_bucket("no-such-bucket-anywhere").await.expect_err("it does not exist");
    assert!(chain(&error).contains("create it or correct"), "{}", chain(&error));
}
