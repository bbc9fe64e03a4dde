//! What a text that names a member of a dimension is proposed to mean.

use serde_json::Value;

/// To become a decision in the transaction that loads the rows, unless there is one already.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// `products`
    pub dimension: String,
    pub spelling: String,
    /// The text as it came: the name of an inferred member.
    pub text: String,
    /// Of the member that rows are to point at; one that does not exist yet is inferred.
    pub natural_key: String,
    /// `identifier`, `alias`, `automatic`, `review` or `new`.
    pub verdict: &'static str,
    /// Of the most similar member.
    pub proposed_key: Option<String>,
    pub margin: Option<f32>,
    pub features: Value,
    pub candidates: Value,
    pub scheme_version: u32,
    pub index_version: String,
}

impl Proposal {
    /// The column of the rows that holds the spelling.
    pub fn column(dimension: &str) -> String {
        format!("_spelling_{dimension}")
    }
}
