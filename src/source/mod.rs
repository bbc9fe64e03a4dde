//! Bytes in: notification formats and the object reader.

pub mod notification;
pub mod object_reader;
