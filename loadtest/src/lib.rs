//! Seeded load for Sluice, and a verifier that looks at the result from outside.
//!
//! ```text
//!  generate ──▶ produce ──▶ S3 (or a topic) ──▶ Sluice ──▶ lake, warehouse
//!      │                                                       │
//!      └──▶ ledger: what each row must become ──▶ verify ◀── observe
//! ```
//!
//! For measuring, [`bulk`] writes the rows to local files with the totals that every engine must come to, and
//! [`floor`] measures what none of them can do without; `benches/staging/` has the engines. [`put`] brings such files
//! into S3, for `benches/pipeline/`.
//!
//! # Contract
//! The verifier knows what each row must become because the generator made it so, not because it decodes
//! anything: no code is shared with the pipeline, which depends on this crate and not the other way round.
//! It reads the S3 listing, Parquet files, PostgreSQL's warehouse tables and the ledger; never the catalog.

pub mod announce;
pub mod bulk;
pub mod canonical;
pub mod endpoints;
pub mod floor;
pub mod formats;
pub mod generate;
pub mod ledger;
pub mod observe;
pub mod produce;
pub mod put;
pub mod verify;

pub use bulk::{BulkPlan, generate_files};
pub use endpoints::{Endpoints, S3Target};
pub use formats::FileFormat;
pub use generate::{Compression, Dataset};
pub use produce::{ProducePlan, ProduceReport, Target, produce};
pub use put::{PutPlan, PutReport, put_files};
pub use verify::{Finding, FindingKind, VerifyReport, verify};
