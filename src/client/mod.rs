//! The outside: brokers, object stores and databases, how often to ask them and what to do when they do not answer.

pub mod kafka;
pub mod kafka_admin;
pub mod postgres;
pub mod rate;
pub mod retry;
pub mod s3;
