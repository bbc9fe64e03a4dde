//! Work on the bytes of one object or record, on a thread for CPU work, and what becomes of bytes that it cannot take.
//!
//! A panic there is a bug, and the same bytes bring it again: they become a dead letter, so that one object does not
//! stop its topic partition for good. The panic's own words go to standard error and nowhere else: they may hold
//! a part of the bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use tokio::task::JoinError;

use crate::types::RejectReason;

/// What is kept of an object that is too large.
const HEAD_BYTES: usize = 1 << 20;

/// Why an object or a record as a whole cannot be read.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) reason: RejectReason,
    pub(super) detail: String,
}

impl Fault {
    fn panicked() -> Self {
        Self {
            reason: RejectReason::DecoderPanicked,
            detail: "decoding, cleaning or checking it panicked: a bug, please report it with these bytes".to_owned(),
        }
    }

    /// What the dead letter keeps of the stored bytes, and its detail, which says so where that is not all.
    pub(super) fn keep(self, bytes: Bytes) -> (Bytes, String) {
        if self.reason != RejectReason::ObjectTooLarge || bytes.len() <= HEAD_BYTES {
            return (bytes, self.detail);
        }
        let detail = format!("{} (the first {HEAD_BYTES} of {} stored bytes are kept)", self.detail, bytes.len());
        // copied: a slice would hold the whole object in memory
        (Bytes::copy_from_slice(&bytes[..HEAD_BYTES]), detail)
    }
}

/// Runs `work` to its end; where it panics, that is the fault of its input.
pub(super) fn catching<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    // what it worked on is dropped with it
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Fault::panicked()))
}

/// The same on a thread for CPU work. An error says that it was cancelled.
pub(super) async fn on_cpu_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<Result<T, Fault>, JoinError> {
    tokio::task::spawn_blocking(|| catching(work)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_the_fault_of_the_input() {
        assert_eq!(on_cpu_thread(|| Ok(1)).await.expect("not cancelled").expect("no fault"), 1);
        let secret = "row of a customer";
        let fault = on_cpu_thread(move || -> Result<(), Fault> { panic!("cannot take {secret}") }).await;
        let fault = fault.expect("not cancelled").expect_err("it panicked");
        assert_eq!(fault.reason, RejectReason::DecoderPanicked);
        assert!(!fault.detail.contains(secret), "{}", fault.detail);
        let bytes = Bytes::from(vec![7; HEAD_BYTES + 1]);
        assert_eq!(fault.keep(bytes.clone()).0, bytes, "to be looked into: all of them");
    }

    #[test]
    fn of_an_object_that_is_too_large_the_beginning_is_kept() {
        let fault = || Fault { reason: RejectReason::ObjectTooLarge, detail: "too large".to_owned() };
        let bytes = Bytes::from((0..HEAD_BYTES + 5).map(|number| number as u8).collect::<Vec<_>>());
        let (kept, detail) = fault().keep(bytes.clone());
        assert_eq!(kept, bytes[..HEAD_BYTES]);
        assert_eq!(detail, "too large (the first 1048576 of 1048581 stored bytes are kept)");
        assert_eq!(fault().keep(bytes.slice(..HEAD_BYTES)), (bytes.slice(..HEAD_BYTES), "too large".to_owned()));
        let broken = Fault { reason: RejectReason::CorruptCompression, detail: String::new() };
        assert_eq!(broken.keep(bytes.clone()).0, bytes);
    }
}
