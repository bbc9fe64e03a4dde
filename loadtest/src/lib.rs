//! Seeded load for Sluice, and a verifier that looks at the result from outside.
//!
//! ```text
//!  generate ──▶ produce ──▶ S3 (or a topic) ──▶ Sluice ──▶ lake, warehouse
//!      │                                                       │
//!      └──▶ ledger: what each row must become ──▶ verify ◀── observe
//! ```
//!
//! # Contract
//! The verifier knows what each row must become because the generator made it so, not because it decodes
//! anything: no code is shared with the pipeline, which depends on this crate and not the other way round.
//! It reads the S3 listing, Parquet files, PostgreSQL's warehouse tables and the ledger; never the catalog.

pub mod announce;
pub mod canonical;
pub mod endpoints;
pub mod generate;
pub mod ledger;
pub mod observe;
pub mod produce;
pub mod verify;

pub use endpoints::{Endpoints, S3Target};
pub use generate::{Compression, Dataset};
pub use produce::{ProducePlan, ProduceReport, Target, produce};
pub use verify::{Finding, FindingKind, VerifyReport, verify};
