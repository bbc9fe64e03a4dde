//! Tests on the real servers of the stack; `make test` starts them and sets `SLUICE_…`.

mod database;
mod loading;
mod objects;
mod operations;
mod validate;
