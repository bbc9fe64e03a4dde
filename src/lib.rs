//! Sluice moves raw files from S3 into partitioned Parquet and a PostgreSQL star schema, exactly once.
//!
//! ```text
//!  S3 raw ──notification──▶ Kafka topic
//!                             │ source      bytes in: consumer, assignment, notification, object reader
//!                             ▼
//!                           decode          bytes → RecordBatch, a reject for every row that does not fit
//!                             ▼
//!                           transform       clean, SQL, expectations, dedupe
//!                             ▼
//!                           stage           rows → Parquet, PUT to `_pending/`
//!                             ▼
//!                           commit          one PostgreSQL transaction makes the micro-batch true
//!                             │             (then the tagged offset commit, advisory)
//!               ┌─────────────┴─────────────┐
//!               ▼                           ▼
//!            publish                      load
//!   `_pending/` → `data/`,        dims, then facts, into the
//!   outbox → `staged-batches`     star schema, idempotently
//!                                   ▲
//!                                resolve       names → members of dimensions
//! ```
//!
//! # Map
//! Modules are declared below in the order in which data flows through them. A stage (`source` to
//! `load`) imports `types`, `error`, `config`, `telemetry`, `client` and `catalog`, never another
//! stage; `pipeline` wires them; `query` reads the lake; `cli` parses and prints. `tests/it/layers.rs` checks it.
//!
//! # Invariants
//! | id | holds | asserted in |
//! |---|---|---|
//! | OFF-1 | every offset has exactly one outcome: live and skipped ranges never overlap | exclusion constraint `one_live_batch_per_offset` |
//! | OFF-2 | `next_offset` moves only together with the micro-batch that covers the range | [`commit`] |
//! | FENCE-1 | only the holder of the newest fence commits | compare-and-swap on `(fence, next_offset)` in [`commit`] |
//! | CLAIM-1 | an object version is consumed by one live micro-batch of a group | primary key of `catalog.object_claim` |
//! | BOOK-1 | the ledgers add up: offsets, objects, rows in, rows out | [`commit`] and trigger `books_balance` |
//! | FILE-1 | no file is visible under `data/` before its micro-batch is live | [`publish`] |
//! | LOAD-1 | rows of a micro-batch and its `load_state` are one transaction | [`load`] |
//! | FILE-2 | files of a replaced micro-batch are hidden only after those that replace them are published | [`publish`] |
//! | CHUNK-1 | a chunk of a large object is recorded only under the newest fence, and the files of a recorded chunk are deleted by nobody but who has deleted its row | `pipeline::chunk_log` |
//! | MASK-1 | of the emitted versions of an object one stands and masks the others, unless they are appended | `catalog::masks` in [`commit`] |
//! | LOAD-2 | of rows with one key the newest stands in the table, the others in its shadow | [`load`] |
//! | LOAD-3 | a row of a replaced micro-batch that is not made again goes, and the best of the shadow takes its place | [`load`] |
//! | REPLAY-1 | a micro-batch covers whole each one that it replaces, and was made to replace just those | [`commit`] |
//! | REPLAY-2 | a replay is accepted in the catalog, then acknowledged in Kafka, then carried out | [`pipeline`] |
//! | REDRIVE-1 | a re-drive is answered in the commit that carries it out, which leaves the position where it is | [`commit`] |

pub mod types;
pub mod error;
pub mod config;
pub mod telemetry;
pub mod client;
pub mod catalog;
pub mod source;
pub mod decode;
pub mod transform;
pub mod resolve;
pub mod stage;
pub mod commit;
pub mod publish;
pub mod load;
pub mod pipeline;
pub mod query;
pub mod embedded;
pub mod cli;
