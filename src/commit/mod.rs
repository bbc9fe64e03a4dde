//! The open micro-batch (ledgers, limits, cut points: pure) and the one transaction that makes it true.
//!
//! # Contract
//! A micro-batch covers a half-open offset range of one topic partition. It becomes true in one
//! PostgreSQL transaction: compare-and-swap of (fence, next_offset), the batch, its ledgers, its
//! files, its object claims, its dead letter samples and its manifest. Before, everything it names
//! lies complete in `_pending/`; after, publish and load take over from the catalog alone.
//! In a replay the same transaction marks the micro-batches that it replaces dead and gives up their claims; it
//! covers each of them whole (REPLAY-1). What it covers of a skipped range is no longer skipped; the rest stays so.
//! A re-drive does the same to one live micro-batch, with the fence alone: the position stays where it is.
//! # Retries
//! The transaction is idempotent by the micro-batch's id: every attempt locks the topic partition's
//! row and looks the id up before it does anything, so a connection lost at COMMIT is answered by trying again.
//! # Crash consistency
//! A crash before COMMIT leaves files in `_pending/` that nothing names; a crash after it loses nothing.

mod ledger;
mod limits;
mod transaction;

pub use ledger::{LedgerError, Ledgers, Totals};
pub use limits::{BatchLimits, Fill};
pub use transaction::{CommitError, CommitOutcome, Proposal, Redrive, commit, commit_passed_over, commit_skipped};
