//! Decisions about names, written with the rows that need them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::error::LoadError;
use super::touched::Touched;
use super::{LoadCounts, PreparedPart, merge_sql};
use crate::types::{MicroBatchId, NameProposal};

/// Dimensions that may get a member: `dim_products`.
pub(super) fn dimensions(parts: &[PreparedPart]) -> BTreeSet<String> {
    let links = parts.iter().filter(|part| !part.proposals.is_empty()).flat_map(|part| part.plan.links());
    links.filter(|link| link.by_name.is_some()).map(|link| link.table.clone()).collect()
}

/// Decides what is proposed, where nobody has decided before, and makes the members that the decisions point at.
pub(super) async fn write(
    touched: &Touched<'_>,
    id: MicroBatchId,
    parts: &[PreparedPart],
    counts: &mut LoadCounts,
) -> Result<(), LoadError> {
    let transaction = touched.transaction;
    let proposals: Vec<Value> = parts.iter().flat_map(|part| &part.proposals).map(row).collect();
    if proposals.is_empty() {
        return Ok(());
    }
    transaction
        .execute(include_str!("sql/insert_decisions.sql"), &[&Value::Array(proposals), &id.0])
        .await
        .map_err(LoadError::query("write decisions about names"))?;
    let mut done = BTreeSet::new();
    for link in parts.iter().flat_map(|part| part.plan.links()) {
        let Some(by_name) = link.by_name.as_ref().filter(|by_name| done.insert(by_name.dimension.as_str())) else {
            continue;
        };
        let proposed = parts.iter().flat_map(|part| &part.proposals);
        let texts: BTreeMap<&str, &str> = proposed
            .filter(|proposal| proposal.dimension == by_name.dimension)
            .map(|proposal| (proposal.spelling.as_str(), proposal.text.as_str()))
            .collect();
        let (spellings, texts): (Vec<&str>, Vec<&str>) = texts.into_iter().unzip();
        let inferred = transaction
            .execute(&merge_sql::insert_named_members(link, by_name), &[&spellings, &texts])
            .await
            .map_err(LoadError::query(format!("infer members of {}", link.table)))?;
        counts.tables.entry(link.table.clone()).or_default().inferred += inferred;
        touched.members.decided(&link.table, &by_name.dimension, &spellings).await?;
    }
    Ok(())
}

fn row(proposal: &NameProposal) -> Value {
    json!({
        "dimension": proposal.dimension, "spelling": proposal.spelling, "natural_key": proposal.natural_key,
        "verdict": proposal.verdict, "proposed_key": proposal.proposed_key, "margin": proposal.margin,
        "features": proposal.features, "candidates": proposal.candidates,
        "scheme_version": proposal.scheme_version, "index_version": proposal.index_version,
    })
}
