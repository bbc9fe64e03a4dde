//! Features into vectors: tf-idf over a table of counts, sparse and exact, or projected to few dimensions.
//!
//! # Contract
//! A vector depends on the text and the table alone. The table is made once from the members of a dimension and kept
//! with its version: a member that is added changes no vector of the others until the index is made anew.
//! Nothing is weighted by hand: words, joined neighbours, splits and trigrams all say as much as they are rare.

use super::ResolveError;
use super::normalize::Feature;

/// Entries of the table. Features share entries; of two places the smaller count is the better one (count-min).
pub const TABLE_ENTRIES: usize = 1 << 16;

/// Of the projected vectors.
pub const DIMENSIONS: usize = 256;

/// What a feature that no member has may be: something new, which counts in full, or a misspelling, which says
/// nothing. Nobody can tell, so it counts half.
const UNSEEN_SHARE: f64 = 0.5;

/// In how many members each feature stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdfTable {
    member_count: u32,
    counts: Vec<u32>,
}

impl Default for IdfTable {
    fn default() -> Self {
        Self { member_count: 0, counts: vec![0; TABLE_ENTRIES] }
    }
}

impl IdfTable {
    /// Counts one member's features, each once.
    pub fn add(&mut self, features: &[Feature]) {
        // a place is raised once for each member, however many of its features share it
        let mut raised: Vec<usize> = features.iter().flat_map(|feature| places(feature.id)).collect();
        raised.sort_unstable();
        raised.dedup();
        for place in raised {
            self.counts[place] += 1;
        }
        self.member_count += 1;
    }

    pub fn member_count(&self) -> u32 {
        self.member_count
    }

    /// In how many members the feature stands, at most.
    pub fn count(&self, id: u32) -> u32 {
        places(id).map(|place| self.counts[place]).into_iter().min().unwrap_or(0)
    }

    /// Nats of surprise at meeting the feature in a member: 0 for one that all have.
    pub fn surprise(&self, id: u32) -> f32 {
        let (members, count) = (f64::from(self.member_count), f64::from(self.count(id)));
        let share = if count == 0.0 { UNSEEN_SHARE } else { 1.0 };
        (share * ((members + 1.0) / (count + 0.5)).ln().max(0.0)) as f32
    }

    /// Of a pair of members that have nothing to do with each other: how much they may share by chance, in nats.
    pub fn chance(&self) -> f32 {
        (self.member_count.max(1) as f32).ln()
    }

    /// Little-endian: the member count, then the counts.
    pub fn to_bytes(&self) -> Vec<u8> {
        let numbers = std::iter::once(self.member_count).chain(self.counts.iter().copied());
        numbers.flat_map(u32::to_le_bytes).collect()
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ResolveError> {
        if bytes.len() != (TABLE_ENTRIES + 1) * 4 {
            return Err(ResolveError::Snapshot("the table of counts has another size".to_owned()));
        }
        let mut numbers = bytes.chunks_exact(4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        let member_count = numbers.next().unwrap_or(0);
        Ok(Self { member_count, counts: numbers.collect() })
    }
}

fn places(id: u32) -> [usize; 2] {
    [(id & 0xffff) as usize, (id >> 16) as usize]
}

/// Of length 1, or empty. By feature, ascending.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SparseVector {
    pub entries: Box<[(u32, f32)]>,
}

impl SparseVector {
    pub fn new(features: &[Feature], table: &IdfTable) -> Self {
        let mut ids: Vec<u32> = features.iter().map(|feature| feature.id).collect();
        ids.sort_unstable();
        let mut entries: Vec<(u32, f32)> = Vec::with_capacity(ids.len());
        for same in ids.chunk_by(|one, other| one == other) {
            let weight = (1.0 + (same.len() as f32).ln()) * table.surprise(same[0]);
            if weight > 0.0 {
                entries.push((same[0], weight));
            }
        }
        let length = entries.iter().map(|(_, weight)| weight * weight).sum::<f32>().sqrt();
        entries.iter_mut().for_each(|(_, weight)| *weight /= length);
        Self { entries: entries.into() }
    }

    /// 0 to 1. Summed by feature ascending, so that every way of computing it gives the same bits.
    pub fn cosine(&self, other: &Self) -> f32 {
        let (one, two) = (&self.entries, &other.entries);
        let (mut at, mut other_at, mut sum) = (0, 0, 0.0);
        while at < one.len() && other_at < two.len() {
            let ((feature, weight), (other_feature, other_weight)) = (one[at], two[other_at]);
            if feature == other_feature {
                sum += weight * other_weight;
            }
            at += usize::from(feature <= other_feature);
            other_at += usize::from(other_feature <= feature);
        }
        sum
    }

    /// Each feature goes, with a sign, to places that its id decides; cosines are kept but for noise.
    pub fn projected(&self) -> Vec<f32> {
        let mut dense = vec![0.0; DIMENSIONS];
        for (id, weight) in &self.entries {
            // multiplication by the golden ratio spreads ids that differ in few bits
            let mixed = (u64::from(*id) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mixed = mixed ^ (mixed >> 29);
            for part in [mixed >> 16, mixed >> 32] {
                let sign = if part & 0x100 == 0 { 1.0 } else { -1.0 };
                dense[(part & 0xff) as usize] += sign * weight;
            }
        }
        dense
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same sums in the same order have the same bits")]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::normalize::{features, words};
    use super::*;

    fn table(texts: &[&str]) -> IdfTable {
        let mut table = IdfTable::default();
        texts.iter().for_each(|text| table.add(&features(&words(text))));
        table
    }

    fn vector(text: &str, table: &IdfTable) -> SparseVector {
        SparseVector::new(&features(&words(text)), table)
    }

    #[test]
    fn the_rarer_feature_surprises_more() {
        let table = table(&["sony tv", "sony radio", "sony tv stand"]);
        let of = |word: &str| table.surprise(features(&words(word))[0].id);
        assert!(of("stand") > of("tv") && of("tv") > of("sony"), "{} {} {}", of("stand"), of("tv"), of("sony"));
        assert_eq!(of("stand"), (4.0_f64 / 1.5).ln() as f32);
        assert_eq!(of("unheard"), (0.5 * (4.0_f64 / 0.5).ln()) as f32);
    }

    #[test]
    fn the_table_survives_its_bytes() {
        let table = table(&["a b", "b c d"]);
        assert_eq!(IdfTable::from_bytes(&table.to_bytes()).expect("its own bytes"), table);
        assert!(IdfTable::from_bytes(&table.to_bytes()[4..]).is_err());
    }

    #[test]
    fn the_same_text_is_at_cosine_one_and_strangers_at_zero() {
        let table = table(&["sony turntable pslx350h", "bose acoustimass", "canon printer"]);
        let one = vector("Sony Turntable PS-LX350H", &table);
        assert!((one.cosine(&one) - 1.0).abs() < 1e-5);
        assert_eq!(one.cosine(&vector("qqq", &table)), 0.0);
        assert_eq!(vector("", &table).entries.len(), 0);
    }

    proptest! {
        /// The oracle counts with sets and maps.
        #[test]
        fn cosines_agree_with_maps(texts in prop::collection::vec("[a-c0-1 ]{0,12}", 2..8)) {
            let all: Vec<&str> = texts.iter().map(String::as_str).collect();
            let table = table(&all);
            let weights = |text: &str| -> BTreeMap<u32, f64> {
                let found = features(&words(text));
                let ids: BTreeSet<u32> = found.iter().map(|f| f.id).collect();
                ids.into_iter().map(|id| {
                    let times = found.iter().filter(|f| f.id == id).count() as f64;
                    (id, (1.0 + times.ln()) * f64::from(table.surprise(id)))
                }).collect()
            };
            let dot = |a: &BTreeMap<u32, f64>, b: &BTreeMap<u32, f64>| -> f64 {
                a.iter().filter_map(|(id, x)| Some(x * b.get(id)?)).sum()
            };
            let (a, b) = (weights(all[0]), weights(all[1]));
            let length = (dot(&a, &a) * dot(&b, &b)).sqrt();
            let wanted = if length > 0.0 { dot(&a, &b) / length } else { 0.0 };
            let found = vector(all[0], &table).cosine(&vector(all[1], &table));
            prop_assert!((f64::from(found) - wanted).abs() < 1e-4, "{found} {wanted}");
        }
    }
}
