//! What speaks for and against two texts naming one thing.

use super::name::{Code, Name};

/// How the model codes of a query and a member go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codes {
    /// Neither has one that matters, or only the member has.
    Absent,
    /// The query has one; the member has none.
    Lacking,
    /// They share one, and the query has none as specific that the member lacks.
    Same,
    /// Both have some, and the query's most specific one is not the member's.
    Conflict,
}

#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Comparison {
    /// Of the sparse vectors.
    pub cosine: f32,
    pub codes: Codes,
    /// Each has a number that the other lacks.
    pub numbers_conflict: bool,
    /// Surprise of the words that both have, in nats; the smaller of the two sides.
    pub shared_nats: f32,
    /// Surprise of the words that one side has alone, in nats; both sides together.
    pub lone_nats: f32,
}

impl Comparison {
    pub fn new(query: &Name, member: &Name, cosine: f32) -> Self {
        let (shared_here, lone_here) = masses(query, member);
        let (shared_there, lone_there) = masses(member, query);
        Self {
            cosine,
            codes: compare_codes(query, member),
            numbers_conflict: numbers_conflict(query, member),
            shared_nats: shared_here.min(shared_there),
            lone_nats: lone_here + lone_there,
        }
    }

    pub fn is_conflict(&self) -> bool {
        self.codes == Codes::Conflict || self.numbers_conflict
    }

    /// What both say outweighs what one says alone, and is more than `chance` gives any two.
    pub fn is_weighty(&self, chance_nats: f32) -> bool {
        self.shared_nats >= self.lone_nats.max(chance_nats)
    }
}

fn masses(of: &Name, in_other: &Name) -> (f32, f32) {
    let mut masses = (0.0, 0.0);
    for (word, surprise) in &of.words {
        if in_other.spells(*word) {
            masses.0 += surprise;
        } else {
            masses.1 += surprise;
        }
    }
    masses
}

fn compare_codes(query: &Name, member: &Name) -> Codes {
    let longest = |codes: &[Code], other: &Name, found: bool| {
        let matching = codes.iter().filter(|code| other.spells(code.id) == found);
        matching.map(|code| code.char_count).max().unwrap_or(0)
    };
    let shared = longest(&query.codes, member, true).max(longest(&member.codes, query, true));
    let lacked = longest(&query.codes, member, false);
    match (shared, lacked) {
        (0, 0) => Codes::Absent,
        (0, _) if member.codes.is_empty() => Codes::Lacking,
        (0, _) => Codes::Conflict,
        (shared, lacked) if lacked >= shared => Codes::Conflict,
        _ => Codes::Same,
    }
}

/// Texts of one thing leave numbers out; texts of two things have different ones.
pub fn numbers_conflict(one: &Name, other: &Name) -> bool {
    let lacks = |a: &Name, b: &Name| a.numbers.iter().any(|number| !b.spells(*number));
    lacks(one, other) && lacks(other, one)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same sums in the same order have the same bits")]
mod tests {
    use super::super::normalize::{features, words};
    use super::super::vectorize::IdfTable;
    use super::*;

    fn compare(query: &str, member: &str) -> Comparison {
        let mut table = IdfTable::default();
        [query, member, "something else", "and more"].iter().for_each(|text| table.add(&features(&words(text))));
        let (query, member) = (Name::new(query, &table), Name::new(member, &table));
        Comparison::new(&query, &member, query.vector.cosine(&member.vector))
    }

    #[test]
    fn codes_agree_in_any_spelling_and_conflict_where_the_query_is_more_specific() {
        let codes = |query: &str, member: &str| compare(query, member).codes;
        assert_eq!(codes("Sony PSLX350H", "sony ps-lx350h turntable"), Codes::Same);
        assert_eq!(codes("Sony PSLX350H", "sony ps-lx360h turntable"), Codes::Conflict);
        assert_eq!(codes("Sony PSLX350H", "sony turntable"), Codes::Lacking);
        assert_eq!(codes("sony turntable", "Sony PSLX350H"), Codes::Absent);
        assert_eq!(codes("handset for KXTG6700B, KXTGA670B", "KX-TG6700B phone"), Codes::Conflict);
        // the shop's own number beside the maker's
        assert_eq!(codes("canon sd1100is", "canon sd1100is, item 00012512"), Codes::Same);
        assert_eq!(codes("black shirt", "red shirt"), Codes::Absent);
    }

    #[test]
    fn numbers_conflict_only_where_both_sides_have_one_that_the_other_lacks() {
        let conflict = |query: &str, member: &str| compare(query, member).numbers_conflict;
        assert!(conflict("ipod 60gb", "ipod 120 gb"));
        assert!(conflict("workshop 1999", "workshop 2000"));
        assert!(conflict("tuning part i", "tuning part ii"));
        assert!(!conflict("tv 40", "tv"));
        assert!(!conflict("ipod 60 gb 2004", "ipod 60gb"));
    }

    #[test]
    fn what_is_shared_outweighs_what_is_not() {
        assert!(compare("red oak table", "red oak table").is_weighty(1.0));
        assert!(!compare("red oak table", "red pine cupboard").is_weighty(0.0));
        assert_eq!(compare("red oak", "red oak").lone_nats, 0.0);
    }
}
