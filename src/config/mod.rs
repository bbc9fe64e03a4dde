//! Configuration: defaults < file < environment < flags, read once at start and passed as values.
//!
//! Every YAML file goes the same way: a tree that knows its places (`yaml`), its shape checked against
//! the JSON Schema that editors get as well (`shape`, `json_schema`), the raw types (`raw_*`), and the
//! validated types that the rest of the program uses ([`Connector`], [`TopicSpec`], [`Settings`]).
//! Problems are collected, each with file, line, column and what to write instead ([`ConfigError`]).
//! Connectors are checked to the end: names of columns, types, and the SQL of expectations
//! and of `transform`, planned. Files of rows that `transform` joins are read with their connector.

mod arrow_schema;
mod check_clean;
mod check_columns;
mod check_connector;
mod check_format;
mod check_expectations;
mod check_history;
mod check_load;
mod check_query;
mod check_rollups;
mod check_tables;
mod clean_step;
mod connector;
mod error;
mod evolved;
mod expectation;
mod expression;
mod files;
mod join_table;
mod json_path;
mod json_schema;
mod kafka_properties;
mod load_connectors;
mod load_settings;
#[cfg(test)]
mod load_texts;
mod predicate;
mod quantity;
mod query;
mod raw_clean;
mod raw_connector;
mod raw_expectation;
mod raw_load;
mod raw_settings;
mod revision;
mod rollup;
mod rollup_sql;
mod secrets;
mod settings;
mod shape;
mod table_file;
mod table_rows;
#[cfg(test)]
mod tables_tests;
#[cfg(test)]
mod time_changes_tests;
mod topics;
mod type_lattice;
mod units;
mod yaml;

pub use arrow_schema::*;
pub use clean_step::*;
pub use connector::*;
pub use error::{ConfigError, ConfigErrors, Place};
pub use evolved::{ADDED_COLUMNS_MAX, seen_from_json};
pub use expectation::*;
pub use join_table::{JoinSource, JoinTable};
pub use json_path::{JsonPath, PathStep};
pub use json_schema::SchemaKind;
pub use load_connectors::{load_connectors, load_project};
pub use load_settings::{Need, Override};
pub use predicate::Predicate;
pub use query::{PLACE_COLUMN, QueryError, QueryPlan, RunRows, plan_query};
pub use rollup::{Rollup, RollupAggregate, RollupGrain};
pub use settings::*;
pub use table_rows::{TABLE_BYTES_MAX, TableRows, TableRowsError};
pub use topics::{Payload, TopicSpec, load_topics};
pub use type_lattice::{DECIMAL_DIGITS_MAX, SeenTypes, see};
pub use units::Unit;
