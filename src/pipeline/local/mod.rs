//! The way from bytes to files without any server: local files in, the files of a lake out.
//!
//! # Contract
//! What happens to a row is what the pipeline does with it: the same decoding, cleaning, expectations, dedupe and
//! encoding, cut by the same limits. A file stands for an object, its place in the list for the message's offset, its
//! modification time for the object's. Nothing is committed: a run that ends early leaves whole files behind, and a run
//! is refused where its folder holds files already.

mod stage;

pub use stage::{StageError, StageJob, StageReport, stage_files};
