//! Configuration: defaults < file < environment < flags, read once at start and passed as values.

mod connector;
mod settings;

pub use connector::*;
pub use settings::*;
