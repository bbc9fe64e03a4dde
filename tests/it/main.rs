//! Tests on real servers: each process starts a stack of its own through `compose/native`.

mod database;
mod loading;
mod objects;
mod operations;
mod pipeline;
mod reader;
mod stack;
mod validate;
