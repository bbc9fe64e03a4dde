//! The outside: object stores, how often to ask them and what to do when they do not answer.

pub mod rate;
pub mod retry;
pub mod s3;
