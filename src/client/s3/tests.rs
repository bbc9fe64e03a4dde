//! Against a server that says what each test wants it to say, over real sockets.

use secrecy::SecretString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::error::{ErrorKind, chain};

/// Answers every request with these bytes and closes.
async fn client_of(answer: &str) -> S3Client {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    let answer = answer.to_owned();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else { break };
                request.push(byte);
            }
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    S3Client::new("raw", &endpoint(address), RequestRate::default())
}

fn endpoint(address: String) -> S3Endpoint {
    S3Endpoint {
        endpoint: Some(address),
        region: "us-east-1".into(),
        access_key_id: "key".into(),
        secret_access_key: SecretString::from("secret"),
        path_style: true,
    }
}

fn found(length: usize, extra: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nETag: \"e\"\r\nLast-Modified: Mon, 23 Nov 2026 13:53:09 GMT\r\n\
         Content-Length: {length}\r\n{extra}\r\n{body}"
    )
}

fn refused(status: &str, code: &str) -> String {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>words</Message></Error>");
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

async fn get(answer: &str) -> Result<Bytes, S3Error> {
    client_of(answer).await.open("raw", "key", Pin::default()).await?.read_all().await
}

#[tokio::test]
async fn a_whole_body_is_accepted() {
    let client = client_of(&found(5, "", "hello")).await;
    let open = client.open("raw", "key", Pin::default()).await.expect("opens");
    let head = open.head().clone();
    assert_eq!((head.etag.as_str(), head.size_bytes, head.version_id.as_deref()), ("e", 5, None));
    assert_eq!(head.last_modified.to_rfc3339(), "2026-11-23T13:53:09+00:00");
    assert_eq!(open.read_all().await.expect("reads"), "hello");
    assert_eq!(get(&found(0, "", "")).await.expect("reads"), "");
}

#[tokio::test]
async fn the_head_of_a_body_is_cut_off() {
    let client = client_of(&found(5, "", "hello")).await;
    let open = client.open("raw", "key", Pin::default()).await.expect("opens");
    assert_eq!(open.read_first(2).await.expect("reads"), "he");
}

#[tokio::test]
async fn a_body_that_breaks_off_is_transient_and_never_half_accepted() {
    let error = get(&found(100, "", "hello")).await.expect_err("it is too short");
    assert_eq!((error.kind(), error.class()), (ErrorKind::Transient, FailureClass::Corrupt));
    assert!(chain(&error).contains("broke off after 5 of 100 bytes"), "{}", chain(&error));
}

#[tokio::test]
async fn a_wrong_checksum_is_transient() {
    let wrong = found(5, "x-amz-checksum-crc32: AAAAAA==\r\n", "hello");
    let error = get(&wrong).await.expect_err("the checksum is another one");
    assert_eq!((error.kind(), error.class()), (ErrorKind::Transient, FailureClass::Corrupt));
    // CRC-32 of "hello" is 3610a686
    let right = found(5, "x-amz-checksum-crc32: NhCmhg==\r\n", "hello");
    assert_eq!(get(&right).await.expect("reads"), "hello");
}

#[tokio::test]
async fn answers_have_their_kind_and_say_what_to_do() {
    let cases = [
        ("404 Not Found", "NoSuchKey", FailureClass::Missing, "it does not exist"),
        ("404 Not Found", "NoSuchBucket", FailureClass::BucketMissing, "create it or correct"),
        ("412 Precondition Failed", "PreconditionFailed", FailureClass::PreconditionFailed, "changed meanwhile"),
        ("403 Forbidden", "SignatureDoesNotMatch", FailureClass::Denied, "correct s3.raw.secret_access_key"),
        ("503 Slow Down", "SlowDown", FailureClass::Busy, "cannot answer now"),
        ("500 Internal Server Error", "InternalError", FailureClass::Busy, "cannot answer now"),
    ];
    for (status, code, class, words) in cases {
        let error = get(&refused(status, code)).await.expect_err(code);
        assert_eq!(error.class(), class, "{code}");
        assert!(chain(&error).contains(words), "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_404_that_is_not_the_stores_own_is_no_missing_object() {
    let html = "<html><body>not found</body></html>";
    let proxy = format!("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{html}", html.len());
    let empty = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_owned();
    for answer in [proxy, empty, refused("404 Not Found", "XAdminUserNotFound")] {
        let error = get(&answer).await.expect_err("refused");
        assert!(!error.is_missing(), "{}", chain(&error));
        assert_eq!(error.kind(), ErrorKind::Transient, "{}", chain(&error));
    }
}

#[tokio::test]
async fn a_version_id_that_cannot_exist_is_a_missing_version() {
    let client = client_of(&refused("400 Bad Request", "InvalidArgument")).await;
    let pin = Pin { version_id: Some("nonsense"), etag: None };
    assert!(client.open("raw", "key", pin).await.expect_err("no such version").is_missing());
    let error = client.open("raw", "key", Pin::default()).await.expect_err("refused");
    assert_eq!(error.class(), FailureClass::ObjectRefused);
}

#[tokio::test]
async fn nobody_listening_is_transient_and_names_the_setting() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("it is bound"));
    drop(listener);
    let client = S3Client::new("lake", &endpoint(address.clone()), RequestRate::default());
    let error = client.put("lake", "key", Bytes::from_static(b"x"), None, true).await.expect_err("nobody is there");
    assert_eq!((error.kind(), error.class()), (ErrorKind::Transient, FailureClass::Unreachable));
    let text = chain(&error);
    assert!(text.contains(&format!("no answer from {address}: start it or correct s3.lake.endpoint")), "{text}");
}

#[tokio::test]
async fn a_server_that_knows_no_versions_keeps_none() {
    let client = client_of(&refused("501 Not Implemented", "NotImplemented")).await;
    assert_eq!(client.versioning("raw").await.expect("an answer"), Versioning::Off);
}
