//! Members of one dimension that look like one thing.

use super::ResolveError;
use super::candidates::Candidates;
use super::compare::{Codes, Comparison};
use super::members::Members;

/// Neighbours of each member that are looked at.
const NEIGHBOUR_COUNT: usize = 5;

/// Members whose vectors are looked up together.
const CHUNK: usize = 256;

/// Two members without conflict that share a model code, or whose texts share more than they differ in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NearDuplicate {
    /// The lower place first.
    pub places: [u32; 2],
    pub comparison: Comparison,
}

/// Most similar first, at most `count_max`.
pub fn near_duplicates(
    members: &Members,
    candidates: &dyn Candidates,
    count_max: usize,
) -> Result<Vec<NearDuplicate>, ResolveError> {
    let chance = members.table().chance();
    let mut found = Vec::new();
    for (chunk, names) in members.names().chunks(CHUNK).enumerate() {
        let vectors: Vec<_> = names.iter().map(|name| &name.vector).collect();
        let near = candidates.nearest(members, &vectors, NEIGHBOUR_COUNT + 1)?;
        for (place, near) in (chunk * CHUNK..).zip(near) {
            for other in near.iter().filter(|other| other.place as usize > place) {
                let name = members.name(place as u32);
                let comparison = Comparison::new(name, members.name(other.place), other.cosine);
                let is_alike = comparison.codes == Codes::Same || comparison.is_weighty(chance);
                if is_alike && !comparison.is_conflict() {
                    found.push(NearDuplicate { places: [place as u32, other.place], comparison });
                }
            }
        }
    }
    found.sort_by(|one, other| {
        other.comparison.cosine.total_cmp(&one.comparison.cosine).then(one.places.cmp(&other.places))
    });
    found.truncate(count_max);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::candidates::ExactScan;
    use super::*;

    #[test]
    fn one_thing_twice_is_reported_and_its_sibling_is_not() {
        let texts =
            ["Sony Turntable PSLX350H", "sony turntable ps-lx350h", "Sony Turntable PSLX250H", "garden chair oak"];
        let members = Members::new(texts.iter().enumerate().map(|(place, text)| (place as i64, *text)));
        let found = near_duplicates(&members, &ExactScan::new(&members), 10).expect("in memory");
        assert_eq!(found.iter().map(|pair| pair.places).collect::<Vec<_>>(), [[0, 1]]);
    }
}
