//! Keys that are spelt one way in the store and another in its notifications.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sluice::config::KeyEncoding::{self, Auto, Form, Literal};
use sluice::source::notification::ObjectEvent;
use sluice::source::object_reader::ReadOutcome;

use super::{Store, announced, announced_by_versitygw};

/// Without `.` and empty components: a store over a file system folds those into other keys.
const AWKWARD: &[&str] = &[
    "events/a b.json",
    "events/a+b.json",
    "events/a%2Bb.json",
    "events/100%.json",
    "events/%20.json",
    "source=web/date=2026-11-23/a b+c é.json",
    "ümlaut/日本語.json",
    "q?x=1&y=2;z,@:$!'()*~.json",
    "quote\"'<>&.json",
    "[brackets]{braces}|pipe^caret`tick#hash.json",
    " leading and trailing ",
    "emoji-🚰.json",
];

/// As AWS spells it in notifications.
fn form_encoded(key: &str) -> String {
    const LEAVES: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'*');
    utf8_percent_encode(key, LEAVES).to_string().replace("%20", "+")
}

async fn key_read(store: &Store, event: &ObjectEvent, encoding: KeyEncoding) -> String {
    match store.reader.read(event, encoding).await.expect("the store answers") {
        ReadOutcome::Read { version, .. } => version.location.key,
        other => panic!("{} is there, got {other:?}", event.key_as_sent),
    }
}

async fn every_spelling_finds_the_key(store: &Store) {
    for key in AWKWARD {
        let (etag, _) = store.put(key, &format!("content of {key}")).await;
        let etag = etag.as_str();
        let encoded = announced(&store.bucket, &form_encoded(key), Some(etag), None);
        assert_eq!(key_read(store, &encoded, Auto).await, *key);
        assert_eq!(key_read(store, &encoded, Form).await, *key);
        let plain = announced(&store.bucket, key, Some(etag), None);
        assert_eq!(key_read(store, &plain, Literal).await, *key);
        assert_eq!(key_read(store, &plain, Auto).await, *key);
        assert_eq!(key_read(store, &announced_by_versitygw(&store.bucket, key, etag), Auto).await, *key);
    }
}

#[tokio::test]
async fn awkward_keys_are_read_whichever_way_they_are_spelt() {
    every_spelling_finds_the_key(&Store::unversioned().await).await;
}

#[tokio::test]
async fn awkward_keys_are_found_in_listings_of_versions_too() {
    every_spelling_finds_the_key(&Store::versioned().await).await;
}

#[tokio::test]
async fn two_keys_that_could_be_one_are_told_apart() {
    for store in [Store::unversioned().await, Store::versioned().await] {
        let (etag, _) = store.put("a b.json", "the same").await;
        store.put("a+b.json", "the same").await;
        store.put("a%2Bb.json", "the same").await;
        for key in ["a b.json", "a+b.json", "a%2Bb.json"] {
            let by_versitygw = announced_by_versitygw(&store.bucket, key, &etag);
            assert_eq!(key_read(&store, &by_versitygw, Auto).await, key);
            let by_aws = announced(&store.bucket, &form_encoded(key), Some(&etag), None);
            assert_eq!(key_read(&store, &by_aws, Auto).await, key);
        }
    }
}

#[tokio::test]
async fn the_etag_tells_a_plain_plus_from_a_space() {
    let store = Store::unversioned().await;
    store.put("a b.json", "with a space").await;
    let (etag, _) = store.put("a+b.json", "with a plus").await;
    let ambiguous = announced(&store.bucket, "a+b.json", Some(&etag), None);
    assert_eq!(key_read(&store, &ambiguous, Auto).await, "a+b.json");
}
