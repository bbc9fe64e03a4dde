//! Tests on real servers: each process starts a stack of its own through `compose/native`.

mod books;
mod cli;
mod database;
mod hostile;
mod layers;
mod loading;
mod objects;
mod operations;
mod parking;
mod pipeline;
mod poison;
mod positions;
mod reader;
mod replay;
#[allow(dead_code, reason = "shared with tests/chaos: each uses a part of it")]
mod stack;
mod validate;
mod versions;
