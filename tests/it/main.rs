//! The tests that need files, tools or servers, as one binary.

mod operations;
