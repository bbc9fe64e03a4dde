//! The decision about one query: automatic, for review, or new.
//!
//! # Rules
//! The best candidate shares the query's model code, or, where none does, has the greatest cosine. It is taken
//! automatically where all of this holds:
//! - no conflict of codes or numbers; and the query has no code that the member says nothing of;
//! - the member is nearer than every rival by [`MARGIN`]: its distance `1 − cosine` is at most half of theirs. A shared
//!   code needs half of that margin ([`MARGIN`] counts doublings of distance), and its rivals are those that share it;
//! - without a shared code: what both say outweighs what one says alone and exceeds chance, and no other member comes
//!   nearer to the member than the query does, by the same margin.
//!
//! Rivals whose numbers conflict with the query's are none. Where no candidate shares more with the query than chance
//! gives, it is `new`; anything else is for review.

use super::candidates::{Candidate, Candidates};
use super::compare::{Codes, Comparison, numbers_conflict};
use super::members::Members;
use super::name::Name;
use super::{CANDIDATE_COUNT, ResolveError};

/// In doublings of distance.
const MARGIN: f32 = 1.0;
const MARGIN_OF_CODES: f32 = 0.5;

/// Distances are not told apart below this.
const DISTANCE_MIN: f32 = 1e-4;

/// Neighbours of a member among which its nearest rival is looked for.
const RIVAL_COUNT: usize = 10;

/// Candidates that a decision keeps, for those who review it.
const KEPT_COUNT: usize = 5;

/// Queries that are looked up together.
const CHUNK: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Automatic,
    Review,
    New,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Self::Automatic => "automatic",
            Self::Review => "review",
            Self::New => "new",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    pub verdict: Verdict,
    /// The best first, then by cosine; at most five.
    pub candidates: Vec<Candidate>,
    /// Of the best.
    pub comparison: Option<Comparison>,
    /// How much nearer the best is than its nearest rival, in doublings of distance; negative where it is farther.
    pub margin: f32,
}

/// Decides about every text, on `threads` threads; the answers do not depend on their number.
pub fn decide_all(
    members: &Members,
    candidates: &dyn Candidates,
    texts: &[&str],
    threads: usize,
) -> Result<Vec<Decision>, ResolveError> {
    let chunks: Vec<&[&str]> = texts.chunks(CHUNK).collect();
    let per_thread = chunks.len().div_ceil(threads.max(1)).max(1);
    let work = |chunks: &[&[&str]]| -> Result<Vec<Decision>, ResolveError> {
        let mut decided = Vec::new();
        for chunk in chunks {
            decided.extend(decide_chunk(members, candidates, chunk)?);
        }
        Ok(decided)
    };
    if threads <= 1 || chunks.len() <= 1 {
        return work(&chunks);
    }
    let parts: Vec<Result<Vec<Decision>, ResolveError>> = std::thread::scope(|scope| {
        let handles: Vec<_> = chunks.chunks(per_thread).map(|part| scope.spawn(move || work(part))).collect();
        handles.into_iter().map(|handle| handle.join().expect("a thread that decides does not panic")).collect()
    });
    let mut decided = Vec::with_capacity(texts.len());
    for part in parts {
        decided.extend(part?);
    }
    Ok(decided)
}

fn decide_chunk(members: &Members, candidates: &dyn Candidates, texts: &[&str]) -> Result<Vec<Decision>, ResolveError> {
    let names: Vec<Name> = texts.iter().map(|text| Name::new(text, members.table())).collect();
    let vectors: Vec<_> = names.iter().map(|name| &name.vector).collect();
    let found = candidates.nearest(members, &vectors, CANDIDATE_COUNT)?;
    let each = names.iter().zip(&found);
    each.map(|(name, found)| Judge { members, candidates, query: name, found }.decide()).collect()
}

struct Judge<'a> {
    members: &'a Members,
    candidates: &'a dyn Candidates,
    query: &'a Name,
    /// By cosine.
    found: &'a [Candidate],
}

impl Judge<'_> {
    fn decide(&self) -> Result<Decision, ResolveError> {
        let compared: Vec<(Candidate, Comparison)> =
            self.found.iter().map(|found| (*found, self.compare(*found))).collect();
        let shares_code = |(_, comparison): &&(Candidate, Comparison)| comparison.codes == Codes::Same;
        let Some((best, comparison)) = compared.iter().find(shares_code).or(compared.first()).copied() else {
            return Ok(Decision { verdict: Verdict::New, candidates: Vec::new(), comparison: None, margin: 0.0 });
        };
        let rivals = compared.iter().filter(|(rival, compared)| {
            rival.place != best.place
                && !compared.numbers_conflict
                && (comparison.codes != Codes::Same || compared.codes == Codes::Same)
        });
        let rival = rivals.map(|(rival, _)| rival.cosine).fold(0.0, f32::max);
        let mut margin = doublings(rival, best.cosine);
        let chance = self.members.table().chance();
        let is_alike = match comparison.codes {
            Codes::Same => true,
            Codes::Absent => comparison.is_weighty(chance),
            Codes::Lacking | Codes::Conflict => false,
        };
        let wanted = if comparison.codes == Codes::Same { MARGIN_OF_CODES } else { MARGIN };
        let mut is_automatic = is_alike && !comparison.is_conflict() && margin >= wanted;
        if is_automatic && comparison.codes != Codes::Same {
            margin = margin.min(doublings(self.rival_of(best.place)?, best.cosine));
            is_automatic = margin >= wanted;
        }
        let is_like_any =
            |(_, compared): &(Candidate, Comparison)| compared.codes == Codes::Same || compared.shared_nats > chance;
        let verdict = match (is_automatic, compared.iter().any(is_like_any)) {
            (true, _) => Verdict::Automatic,
            (false, true) => Verdict::Review,
            (false, false) => Verdict::New,
        };
        let others = self.found.iter().filter(|found| found.place != best.place).copied();
        let candidates = std::iter::once(best).chain(others).take(KEPT_COUNT).collect();
        Ok(Decision { verdict, candidates, comparison: Some(comparison), margin })
    }

    fn compare(&self, found: Candidate) -> Comparison {
        Comparison::new(self.query, self.members.name(found.place), found.cosine)
    }

    /// Cosine of the member's nearest other member.
    fn rival_of(&self, place: u32) -> Result<f32, ResolveError> {
        let member = self.members.name(place);
        let near = self.candidates.nearest(self.members, &[&member.vector], RIVAL_COUNT)?;
        let mut others = near.iter().flatten().filter(|other| other.place != place);
        let rival = others.find(|other| !numbers_conflict(member, self.members.name(other.place)));
        Ok(rival.map_or(0.0, |rival| rival.cosine))
    }
}

/// By how much a distance is shorter than a rival's.
fn doublings(rival_cosine: f32, cosine: f32) -> f32 {
    let distance = |cosine: f32| (1.0 - cosine).max(DISTANCE_MIN);
    (distance(rival_cosine) / distance(cosine)).log2()
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the same sums in the same order have the same bits")]
mod tests {
    use super::super::candidates::ExactScan;
    use super::*;

    const PRODUCTS: [&str; 12] = [
        "Sony Turntable - PSLX350H",
        "Sony Turntable - PSLX250H",
        "Bose Acoustimass 5 Series III Speaker System - AM53BK",
        "Bose Acoustimass 6 Series III Speaker System - AM6III",
        "Canon PIXMA Photo Printer",
        "Apple iPod Nano 4GB Silver",
        "Apple iPod Nano 8GB Silver",
        "Wooden garden chair",
        "Leather office chair",
        "Kitchen Aid Stand Mixer",
        "Garmin Suction Cup Mount",
        "Logitech Wireless Keyboard",
    ];

    fn decide(texts: &[&str], threads: usize) -> Vec<Decision> {
        let members = Members::new(PRODUCTS.iter().enumerate().map(|(place, text)| (place as i64, *text)));
        decide_all(&members, &ExactScan::new(&members), texts, threads).expect("in memory")
    }

    fn verdict(text: &str) -> (Verdict, Option<&'static str>) {
        let decision = decide(&[text], 1).remove(0);
        (decision.verdict, decision.candidates.first().map(|best| PRODUCTS[best.place as usize]))
    }

    #[test]
    fn a_model_code_in_another_spelling_decides() {
        assert_eq!(verdict("SONY PS-LX350H belt drive turntable"), (Verdict::Automatic, Some(PRODUCTS[0])));
    }

    #[test]
    fn another_model_code_goes_to_review() {
        assert_eq!(verdict("Sony Turntable - PSLX450H").0, Verdict::Review);
    }

    #[test]
    fn a_clear_name_without_codes_decides() {
        assert_eq!(verdict("wooden garden chair"), (Verdict::Automatic, Some(PRODUCTS[7])));
        assert_eq!(verdict("Garmin suction-cup mount"), (Verdict::Automatic, Some(PRODUCTS[10])));
    }

    #[test]
    fn another_number_goes_to_review() {
        assert_eq!(verdict("Apple iPod Nano 16GB Silver").0, Verdict::Review);
        assert_eq!(verdict("Apple iPod Nano Silver").0, Verdict::Review);
    }

    #[test]
    fn a_stranger_is_new() {
        assert_eq!(verdict("xylophone").0, Verdict::New);
        assert_eq!(verdict(" – "), (Verdict::New, None));
        assert_eq!(verdict("bicycle pump").0, Verdict::New);
    }

    #[test]
    fn the_number_of_threads_changes_nothing() {
        let texts: Vec<&str> = PRODUCTS.iter().cycle().take(300).copied().collect();
        let one = decide(&texts, 1);
        assert_eq!(one.len(), 300);
        for threads in [2, 3, 64] {
            assert_eq!(decide(&texts, threads), one, "{threads}");
        }
    }

    #[test]
    fn margins_count_doublings_of_distance() {
        assert_eq!(doublings(0.5, 0.75), 1.0);
        assert_eq!(doublings(0.75, 0.5), -1.0);
        assert!(doublings(1.0, 1.0).abs() < f32::EPSILON);
    }
}
