//! The stored bytes of a large object as a blocking reader, while few of them are held.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::client::retry::{RetryPolicy, retry};
use crate::source::object_reader::{RangeError, RangedObject};

/// Of one GET; three of them are held at most.
const RANGE_BYTES: u64 = 8 << 20;

/// Reads on a thread for CPU work what a task fetches.
pub(super) struct ObjectStream {
    incoming: mpsc::Receiver<Bytes>,
    current: Bytes,
    /// Still to come.
    left: u64,
}

/// The task that fetches. It ends when nobody reads any more.
pub(super) type Fetching = JoinHandle<Result<(), RangeError>>;

/// Begins to read an object from its stored byte `start`.
pub(super) fn stream(object: &Arc<RangedObject>, start: u64, retries: &RetryPolicy) -> (ObjectStream, Fetching) {
    let (sender, incoming) = mpsc::channel(1);
    let left = object.version().size_bytes.saturating_sub(start);
    let task = tokio::spawn(fetch(Arc::clone(object), start, retries.clone(), sender));
    (ObjectStream { incoming, current: Bytes::new(), left }, task)
}

async fn fetch(
    object: Arc<RangedObject>,
    mut start: u64,
    retries: RetryPolicy,
    parts: mpsc::Sender<Bytes>,
) -> Result<(), RangeError> {
    let size = object.version().size_bytes;
    while start < size {
        let end = size.min(start + RANGE_BYTES);
        let part = tokio::select! {
            part = retry(&retries, "s3", RangeError::kind, || object.read(start..end)) => part?,
            () = parts.closed() => return Ok(()),
        };
        if parts.send(part).await.is_err() {
            return Ok(());
        }
        start = end;
    }
    Ok(())
}

impl Read for ObjectStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && self.left > 0 {
            let Some(part) = self.incoming.blocking_recv() else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the object is not fetched any more"));
            };
            self.left = self.left.saturating_sub(part.len() as u64);
            self.current = part;
        }
        let count = self.current.len().min(into.len());
        into[..count].copy_from_slice(&self.current[..count]);
        self.current.advance(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read_and_one_that_is_missing_is_an_error() {
        let parts = [&b"one"[..], b"", b"three"];
        for left in [8, 9] {
            let (sender, incoming) = mpsc::channel(parts.len());
            for part in parts {
                sender.blocking_send(Bytes::from_static(part)).expect("there is room");
            }
            drop(sender);
            let mut stream = ObjectStream { incoming, current: Bytes::new(), left };
            let mut read = Vec::new();
            let ended = stream.read_to_end(&mut read);
            assert_eq!(read, b"onethree");
            assert_eq!(ended.is_ok(), left == 8, "{ended:?}");
        }
    }
}
