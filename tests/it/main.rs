//! Tests on real servers: each process starts a stack of its own through `compose/native`.

mod books;
#[allow(dead_code, reason = "shared with tests/chaos: each uses a part of it")]
mod checker;
mod cli;
mod compaction;
mod database;
mod dependencies;
mod doctor;
mod evolution;
mod guards;
mod dead_letters;
mod expectations;
#[allow(dead_code, reason = "shared with tests/chaos: each uses a part of it")]
mod histories;
mod hostile;
mod joins;
mod large;
mod hostile_files;
mod layers;
mod loading;
mod local;
mod looking;
mod masks;
mod objects;
mod operations;
mod owner;
mod parking;
mod partly;
mod pipeline;
mod poison;
mod positions;
mod query;
mod reader;
mod recorded;
mod replay;
mod resolve;
#[allow(dead_code, reason = "shared with tests/chaos: each uses a part of it")]
mod stack;
mod transform;
mod validate;
#[allow(dead_code, reason = "shared with tests/chaos: each uses a part of it")]
mod variants;
mod versions;
mod views;
mod windows;
