//! Configuration: defaults < file < environment < flags, read once at start and passed as values.

mod arrow_schema;
mod connector;
mod settings;

pub use arrow_schema::*;
pub use connector::*;
pub use settings::*;
