//! Bytes in: the group's consumer, where an assigned topic partition starts, what notifications say, and the
//! bytes of the objects they announce.
//!
//! # Contract
//! A topic partition's position comes from the catalog through [`assignment::decide`]; the consumer only carries
//! it. A message is read once per assignment, in offset order; an object is read at exactly one version.

pub mod assignment;
pub mod consumer;
pub mod notification;
pub mod object_reader;
