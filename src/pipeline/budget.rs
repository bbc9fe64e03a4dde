//! One memory budget for everything in flight.
//!
//! Admission, not accounting to the byte: work asks for its estimate before it starts and may
//! correct it when it knows more. Asking waits, first come first served, until the estimate fits or
//! nothing else is in flight; correcting never waits, so whoever holds memory can always finish and give it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Mutex, Notify};

use crate::telemetry::metrics;

#[derive(Debug, Clone)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limit: u64,
    used: AtomicU64,
    released: Notify,
    /// Held by the one that waits at the head of the line: tokio's mutex is fair.
    line: Mutex<()>,
}

/// Memory that its holder uses; given back when dropped.
#[derive(Debug)]
pub struct MemoryShare {
    shared: Arc<Shared>,
    bytes: u64,
}

impl MemoryBudget {
    pub fn new(limit: u64) -> Self {
        metrics().memory_limit_bytes.with_label_values::<&str>(&[]).set(limit as i64);
        let shared = Shared { limit, used: AtomicU64::new(0), released: Notify::new(), line: Mutex::new(()) };
        Self { shared: Arc::new(shared) }
    }

    /// Takes `bytes` whether they fit or not, for work without which nothing would be given back.
    pub fn take(&self, bytes: u64) -> MemoryShare {
        self.shared.add(bytes);
        MemoryShare { shared: Arc::clone(&self.shared), bytes }
    }

    /// Waits until `bytes` fit, or until nothing else is in flight. Safe to drop: nothing is taken then.
    pub async fn reserve(&self, bytes: u64) -> MemoryShare {
        let _head_of_line = self.shared.line.lock().await;
        loop {
            let released = self.shared.released.notified();
            let used = self.shared.used.load(Ordering::Acquire);
            if used == 0 || used.saturating_add(bytes) <= self.shared.limit {
                self.shared.add(bytes);
                return MemoryShare { shared: Arc::clone(&self.shared), bytes };
            }
            released.await;
        }
    }
}

impl Shared {
    // only the head of the line adds under `reserve`, so the check before cannot be overtaken by another reservation
    fn add(&self, bytes: u64) {
        let used = self.used.fetch_add(bytes, Ordering::AcqRel) + bytes;
        metrics().memory_reserved_bytes.with_label_values::<&str>(&[]).set(used as i64);
    }

    fn subtract(&self, bytes: u64) {
        let used = self.used.fetch_sub(bytes, Ordering::AcqRel) - bytes;
        metrics().memory_reserved_bytes.with_label_values::<&str>(&[]).set(used as i64);
        // the one waiter at the head may be between its check and its wait: `notify_one` keeps a permit for it
        self.released.notify_one();
    }
}

impl MemoryShare {
    /// Corrects a part of the estimate from `estimated` to `known` bytes; never waits.
    pub fn correct(&mut self, estimated: u64, known: u64) {
        let bytes = self.bytes.saturating_sub(estimated).saturating_add(known);
        if bytes > self.bytes {
            self.shared.add(bytes - self.bytes);
        } else {
            self.shared.subtract(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.shared.subtract(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_waits_until_enough_is_given_back() {
        let budget = MemoryBudget::new(100);
        let first = budget.reserve(60).await;
        let second = budget.reserve(40).await;
        let mut third = tokio_test_task(budget.clone(), 50);
        assert!(!third.is_finished());
        drop(second);
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "60 and 50 are more than 100");
        drop(first);
        assert_eq!((&mut third).await.expect("the task ends").bytes, 50);
    }

    #[tokio::test]
    async fn a_single_giant_is_let_in_alone() {
        let budget = MemoryBudget::new(100);
        let mut giant = budget.reserve(1_000).await;
        giant.correct(990, 0);
        assert_eq!(budget.reserve(90).await.bytes, 90);
    }

    #[tokio::test]
    async fn each_part_of_an_estimate_is_corrected_by_itself() {
        let budget = MemoryBudget::new(100);
        let mut share = budget.reserve(10 + 20 + 30).await;
        share.correct(20, 25);
        share.correct(30, 5);
        assert_eq!(share.bytes, 40);
        share.correct(1_000, 1);
        assert_eq!(share.bytes, 1);
    }

    fn tokio_test_task(budget: MemoryBudget, bytes: u64) -> tokio::task::JoinHandle<MemoryShare> {
        tokio::spawn(async move { budget.reserve(bytes).await })
    }
}
