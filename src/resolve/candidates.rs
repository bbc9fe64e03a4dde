//! Which members a query may mean: the trait, and the exact scan.

use std::collections::HashMap;

use super::ResolveError;
use super::members::Members;
use super::vectorize::SparseVector;

/// A member near a query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    pub place: u32,
    /// Exact, of the sparse vectors.
    pub cosine: f32,
}

/// Finds the members nearest to a query.
pub trait Candidates: Send + Sync {
    /// Up to `count` members for each query, nearest first, of equally near ones the lower place. Members without
    /// any common feature are left out. `members` are those that the index was made of, and any that came later.
    fn nearest(
        &self,
        members: &Members,
        queries: &[&SparseVector],
        count: usize,
    ) -> Result<Vec<Vec<Candidate>>, ResolveError>;
}

/// Compares with every member, by way of an inverted index.
#[derive(Debug, Default)]
pub struct ExactScan {
    /// By feature: the members that have it, each with its weight; ascending.
    postings: HashMap<u32, Vec<(u32, f32)>>,
    indexed_count: usize,
}

impl ExactScan {
    pub fn new(members: &Members) -> Self {
        let mut postings: HashMap<u32, Vec<(u32, f32)>> = HashMap::new();
        for (place, name) in members.names().iter().enumerate() {
            for (feature, weight) in &name.vector.entries {
                postings.entry(*feature).or_default().push((place as u32, *weight));
            }
        }
        Self { postings, indexed_count: members.len() }
    }
}

impl Candidates for ExactScan {
    fn nearest(
        &self,
        members: &Members,
        queries: &[&SparseVector],
        count: usize,
    ) -> Result<Vec<Vec<Candidate>>, ResolveError> {
        let mut cosines = vec![0.0_f32; self.indexed_count];
        let mut all = Vec::with_capacity(queries.len());
        for query in queries {
            // by feature ascending, as `cosine` sums
            for (feature, weight) in &query.entries {
                for (place, other) in self.postings.get(feature).into_iter().flatten() {
                    cosines[*place as usize] += weight * other;
                }
            }
            let indexed = cosines.iter_mut().enumerate().filter(|(_, cosine)| **cosine > 0.0);
            let mut found: Vec<Candidate> = indexed
                .map(|(place, cosine)| Candidate { place: place as u32, cosine: std::mem::take(cosine) })
                .collect();
            found.extend(scan(members, query, self.indexed_count));
            all.push(best(found, count));
        }
        Ok(all)
    }
}

/// Every member from place `first` on that has anything in common with the query.
pub(super) fn scan<'a>(
    members: &'a Members,
    query: &'a SparseVector,
    first: usize,
) -> impl Iterator<Item = Candidate> + 'a {
    let names = members.names().iter().enumerate().skip(first);
    names
        .map(|(place, name)| Candidate { place: place as u32, cosine: query.cosine(&name.vector) })
        .filter(|candidate| candidate.cosine > 0.0)
}

/// The nearest, in order.
pub(super) fn best(mut found: Vec<Candidate>, count: usize) -> Vec<Candidate> {
    let order = |a: &Candidate, b: &Candidate| b.cosine.total_cmp(&a.cosine).then(a.place.cmp(&b.place));
    if found.len() > count && count > 0 {
        found.select_nth_unstable_by(count - 1, order);
    }
    found.truncate(count);
    found.sort_unstable_by(order);
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::name::Name;
    use super::*;

    fn members(texts: &[String]) -> Members {
        Members::new(texts.iter().enumerate().map(|(place, text)| (place as i64, text.as_str())))
    }

    proptest! {
        /// The oracle compares one by one and sorts everything.
        #[test]
        fn the_scan_finds_what_comparing_one_by_one_finds(
            texts in prop::collection::vec("[a-d]{1,3}( [a-d0-1]{1,3}){0,3}", 1..30),
            later in prop::collection::vec("[a-d]{1,3}( [a-d0-1]{1,3}){0,3}", 0..5),
            query in "[a-d]{1,3}( [a-d0-1]{1,3}){0,3}",
            count in 1_usize..12,
        ) {
            let mut members = members(&texts);
            let scan = ExactScan::new(&members);
            later.iter().enumerate().for_each(|(place, text)| members.push((texts.len() + place) as i64, text));
            let query = Name::new(&query, members.table()).vector;
            let mut wanted: Vec<(u32, f32)> = (0..members.len() as u32)
                .map(|place| (place, query.cosine(&members.name(place).vector)))
                .filter(|(_, cosine)| *cosine > 0.0)
                .collect();
            wanted.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
            wanted.truncate(count);
            let found = scan.nearest(&members, &[&query, &query], count).expect("in memory");
            for found in found {
                let found: Vec<(u32, f32)> = found.iter().map(|c| (c.place, c.cosine)).collect();
                prop_assert_eq!(&found, &wanted);
            }
        }
    }
}
