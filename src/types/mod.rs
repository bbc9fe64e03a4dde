//! The nouns. Values only: no I/O, no clocks, no configuration.

mod dead_letter;
mod decimal;
mod decoded;
mod ids;
mod object;
mod offset_range;
mod outcome;
mod proposal;
mod rows;
mod staged_file;
mod topic_partition;

pub use dead_letter::{DeadLetter, LetterId, LetterPlace, RejectReason};
pub use decimal::plain_decimal;
pub use decoded::{Decoded, DecodedBatch, Span, kept_bytes, with_header};
pub use ids::{Fence, MicroBatchId};
pub use object::{ObjectClaim, ObjectLocation, ObjectVersion, Overwrite, ParkedObject};
pub use offset_range::OffsetRange;
pub use outcome::{ObjectOutcome, OffsetOutcome, RowOutcome};
pub use proposal::Proposal;
pub use rows::{Origin, OriginRows, RowReject};
pub use staged_file::{FileKind, StagedFile, TablePartition};
pub use topic_partition::TopicPartition;
