//! What went wrong with an object store, by operation, and what to do about it.

use std::error::Error;
use std::fmt;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use crate::error::ErrorKind;

/// One variant an operation; the source says why and what to do.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    #[error("cannot read object `{key}` of bucket `{bucket}`")]
    Get {
        bucket: String,
        key: String,
        #[source]
        source: Failure,
    },
    #[error("cannot look at object `{key}` of bucket `{bucket}`")]
    Head {
        bucket: String,
        key: String,
        #[source]
        source: Failure,
    },
    #[error("cannot write object `{key}` of bucket `{bucket}`")]
    Put {
        bucket: String,
        key: String,
        #[source]
        source: Failure,
    },
    #[error("cannot copy object `{from}` to `{to}` in bucket `{bucket}`")]
    Copy {
        bucket: String,
        from: String,
        to: String,
        #[source]
        source: Failure,
    },
    #[error("cannot delete object `{key}` of bucket `{bucket}`")]
    Delete {
        bucket: String,
        key: String,
        #[source]
        source: Failure,
    },
    #[error("cannot list bucket `{bucket}` under `{prefix}`")]
    List {
        bucket: String,
        prefix: String,
        #[source]
        source: Failure,
    },
    #[error("cannot list the versions of object `{key}` of bucket `{bucket}`")]
    ListVersions {
        bucket: String,
        key: String,
        #[source]
        source: Failure,
    },
    #[error("cannot ask whether bucket `{bucket}` keeps versions")]
    GetVersioning {
        bucket: String,
        #[source]
        source: Failure,
    },
    #[error("cannot reach bucket `{bucket}`")]
    HeadBucket {
        bucket: String,
        #[source]
        source: Failure,
    },
}

impl S3Error {
    pub fn kind(&self) -> ErrorKind {
        self.failure().class.kind()
    }

    /// The object or that version of it does not exist (the bucket does, as far as the answer tells).
    pub fn is_missing(&self) -> bool {
        self.failure().class == FailureClass::Missing
    }

    /// A condition such as If-Match or If-None-Match did not hold.
    pub fn is_precondition_failed(&self) -> bool {
        self.failure().class == FailureClass::PreconditionFailed
    }

    /// This one object cannot be had.
    pub fn is_object_refused(&self) -> bool {
        self.failure().class == FailureClass::ObjectRefused
    }

    /// The server does not know the operation.
    pub fn is_unsupported(&self) -> bool {
        self.failure().class == FailureClass::Unsupported
    }

    pub fn class(&self) -> FailureClass {
        self.failure().class
    }

    fn failure(&self) -> &Failure {
        match self {
            Self::Get { source, .. }
            | Self::Head { source, .. }
            | Self::Put { source, .. }
            | Self::Copy { source, .. }
            | Self::Delete { source, .. }
            | Self::List { source, .. }
            | Self::ListVersions { source, .. }
            | Self::GetVersioning { source, .. }
            | Self::HeadBucket { source, .. } => source,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// No such object or version.
    Missing,
    BucketMissing,
    PreconditionFailed,
    /// Wrong credentials, rights, region or clock. Transient on purpose: what runs waits, loudly, until
    /// somebody mends it, and loses nothing. `doctor` and start-up show it at once.
    Denied,
    /// The server answered that it cannot now.
    Busy,
    /// No answer, or half of one.
    Unreachable,
    /// A body shorter than announced, or one that does not match its checksum.
    Corrupt,
    Unsupported,
    /// It cannot give this one object: it is archived, or no request can be made of its name. The same tomorrow.
    ObjectRefused,
    /// Any other refusal.
    Refused,
}

impl FailureClass {
    pub fn kind(self) -> ErrorKind {
        match self {
            // Callers that expect these ask for them by name; where nobody does, something is badly wrong.
            Self::Missing | Self::PreconditionFailed | Self::Unsupported | Self::ObjectRefused => ErrorKind::Halt,
            Self::BucketMissing | Self::Denied | Self::Busy | Self::Unreachable | Self::Corrupt | Self::Refused => {
                ErrorKind::Transient
            }
        }
    }
}

/// Why an operation failed: what the server said and what to do.
#[derive(Debug)]
pub struct Failure {
    class: FailureClass,
    /// `None`: no answer came.
    status: Option<u16>,
    /// The server's, may be empty.
    code: String,
    message: String,
    cause: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// Of a read that asked for a version: an id that cannot exist and a delete marker are missing objects.
    pub(super) fn of_version(mut self, version_id: Option<&str>) -> Self {
        if version_id.is_some() && matches!(self.code.as_str(), "InvalidArgument" | "MethodNotAllowed") {
            self.class = FailureClass::Missing;
        }
        self
    }

    /// Of a read of one object: what is wrong with the request is wrong with its name.
    pub(super) fn of_object(mut self) -> Self {
        if self.class == FailureClass::Refused && self.status == Some(400) {
            self.class = FailureClass::ObjectRefused;
        }
        self
    }

    /// Of a HEAD, whose answers have no body: `NotFound` is what the SDK calls a 404 without one.
    pub(super) fn of_head(mut self) -> Self {
        if self.code == "NotFound" {
            self.class = FailureClass::Missing;
        }
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as &(dyn Error + 'static))
    }
}

/// Where requests go, to be named in messages.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// Section of the settings: `raw` or `lake`.
    pub(super) section: &'static str,
    /// Address of the server, or `AWS (region)`.
    pub(super) address: String,
}

impl Place {
    /// From an error of the SDK.
    pub(super) fn failure<E>(&self, bucket: &str, error: SdkError<E, HttpResponse>) -> Failure
    where
        E: Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        let status = error.raw_response().map(|response| response.status().as_u16());
        let code = error.code().unwrap_or_default().to_owned();
        let said = error.message().unwrap_or_default().to_owned();
        let class = match status {
            Some(status) => class_of(status, &code),
            None if matches!(error, SdkError::ConstructionFailure(_)) => FailureClass::ObjectRefused,
            None => FailureClass::Unreachable,
        };
        let message = match status {
            Some(status) => self.answer(class, status, &code, &said, bucket),
            None if class == FailureClass::ObjectRefused => "no request can be made of this name".to_owned(),
            None => format!(
                "no answer from {}: start it or correct s3.{section}.endpoint",
                self.address,
                section = self.section
            ),
        };
        // an answer is told whole above; the chain below it only repeats it
        let cause = if status.is_none() || code.is_empty() { error.into_source().ok() } else { None };
        Failure { class, status, code, message, cause }
    }

    /// A body that cannot be trusted.
    pub(super) fn corrupt(&self, message: &str, cause: Option<Box<dyn Error + Send + Sync>>) -> Failure {
        Failure {
            class: FailureClass::Corrupt,
            status: None,
            code: String::new(),
            message: format!("{message} (from {})", self.address),
            cause,
        }
    }

    fn answer(&self, class: FailureClass, status: u16, code: &str, said: &str, bucket: &str) -> String {
        let Self { section, address } = self;
        let answer = match (code, said) {
            ("", _) => format!("status {status}"),
            (_, "") => format!("status {status}, {code}"),
            _ => format!("status {status}, {code}: {said}"),
        };
        match class {
            FailureClass::Missing => format!("it does not exist ({answer})"),
            FailureClass::BucketMissing => format!(
                "bucket `{bucket}` does not exist at {address}: create it or correct the bucket's name in the settings"
            ),
            FailureClass::PreconditionFailed => format!("it has changed meanwhile ({answer})"),
            FailureClass::Denied => format!("{address} refuses ({answer}): {}", advice(section, code)),
            FailureClass::Busy => format!("{address} cannot answer now ({answer})"),
            FailureClass::Unsupported => format!("{address} does not know this operation ({answer})"),
            FailureClass::Unreachable | FailureClass::Corrupt => {
                format!("the answer of {address} broke off ({answer})")
            }
            FailureClass::ObjectRefused => {
                format!("{address} does not hand it out ({answer}): {}", advice(section, code))
            }
            FailureClass::Refused => format!("{address} refuses ({answer})"),
        }
    }
}

/// Source: Amazon S3 API Reference, "Error responses", read 2026-11; versitygw 1.6.0 and MinIO use the same codes.
fn class_of(status: u16, code: &str) -> FailureClass {
    match code {
        "NoSuchBucket" | "InvalidBucketName" => return FailureClass::BucketMissing,
        // the last two: a key that cannot exist
        "NoSuchKey" | "NoSuchVersion" | "KeyTooLongError" | "KeyTooLong" => return FailureClass::Missing,
        "PreconditionFailed" => return FailureClass::PreconditionFailed,
        "NotImplemented" => return FailureClass::Unsupported,
        // versitygw 1.6.0 answers 404 to an access key that it does not know
        "XAdminUserNotFound"
        | "ExpiredToken"
        | "InvalidToken"
        | "AuthorizationHeaderMalformed"
        | "PermanentRedirect" => return FailureClass::Denied,
        "InvalidObjectState" => return FailureClass::ObjectRefused,
        _ => {}
    }
    match status {
        412 => FailureClass::PreconditionFailed,
        301 | 307 | 401 | 403 => FailureClass::Denied,
        501 => FailureClass::Unsupported,
        // conflicts of concurrent requests, timeouts, throttling, and whatever the server admits to
        408 | 409 | 425 | 429 | 500.. => FailureClass::Busy,
        200..=299 => FailureClass::Corrupt,
        // also a 404 without a known code: a proxy's or an unknown user's. An object is missing only where
        // the store itself says so, for what is missing is never looked for again.
        _ => FailureClass::Refused,
    }
}

fn advice(section: &str, code: &str) -> String {
    match code {
        "RequestTimeTooSkewed" => "set this machine's clock".to_owned(),
        "AuthorizationHeaderMalformed" | "PermanentRedirect" => format!("correct s3.{section}.region"),
        "InvalidObjectState" => "it is archived; restore it, then replay or re-drive".to_owned(),
        "InvalidAccessKeyId" | "XAdminUserNotFound" => format!("correct s3.{section}.access_key_id"),
        "SignatureDoesNotMatch" => format!("correct s3.{section}.secret_access_key"),
        _ => format!(
            "check s3.{section}.access_key_id and its rights (without s3:ListBucket a missing object looks denied, too)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart() {
        let cases = [
            (404, "NoSuchKey", FailureClass::Missing, ErrorKind::Halt),
            (404, "NoSuchVersion", FailureClass::Missing, ErrorKind::Halt),
            (404, "NotFound", FailureClass::Refused, ErrorKind::Transient),
            (404, "", FailureClass::Refused, ErrorKind::Transient),
            (404, "XAdminUserNotFound", FailureClass::Denied, ErrorKind::Transient),
            (400, "InvalidBucketName", FailureClass::BucketMissing, ErrorKind::Transient),
            (501, "VersioningNotConfigured", FailureClass::Unsupported, ErrorKind::Halt),
            (404, "NoSuchBucket", FailureClass::BucketMissing, ErrorKind::Transient),
            (400, "InvalidArgument", FailureClass::Refused, ErrorKind::Transient),
            (412, "PreconditionFailed", FailureClass::PreconditionFailed, ErrorKind::Halt),
            (403, "AccessDenied", FailureClass::Denied, ErrorKind::Transient),
            (403, "SignatureDoesNotMatch", FailureClass::Denied, ErrorKind::Transient),
            (400, "ExpiredToken", FailureClass::Denied, ErrorKind::Transient),
            (409, "OperationAborted", FailureClass::Busy, ErrorKind::Transient),
            (503, "SlowDown", FailureClass::Busy, ErrorKind::Transient),
            (500, "InternalError", FailureClass::Busy, ErrorKind::Transient),
            (501, "NotImplemented", FailureClass::Unsupported, ErrorKind::Halt),
            (400, "MalformedXML", FailureClass::Refused, ErrorKind::Transient),
            (403, "InvalidObjectState", FailureClass::ObjectRefused, ErrorKind::Halt),
        ];
        for (status, code, class, kind) in cases {
            assert_eq!(class_of(status, code), class, "{status} {code}");
            assert_eq!(class.kind(), kind, "{status} {code}");
        }
    }

    #[test]
    fn messages_say_what_to_do() {
        let place = Place { section: "raw", address: "http://127.0.0.1:7070".to_owned() };
        let missing = place.answer(FailureClass::BucketMissing, 404, "NoSuchBucket", "", "raw");
        assert_eq!(
            missing,
            "bucket `raw` does not exist at http://127.0.0.1:7070: create it or correct the bucket's name in the settings"
        );
        let denied = place.answer(FailureClass::Denied, 403, "InvalidAccessKeyId", "no such key", "raw");
        assert_eq!(
            denied,
            "http://127.0.0.1:7070 refuses (status 403, InvalidAccessKeyId: no such key): correct s3.raw.access_key_id"
        );
    }
}
