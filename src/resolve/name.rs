//! A text made ready to be compared: its vector, and what of it names a model.
//!
//! A **code** names a model: at least four characters with letters and digits (`pslx350h`), or five digits and more
//! (`0101072302`); but no measure (`60gb`, `1080p`, `5200rpm`: digits, then up to three letters). A **number** is any
//! other word with a digit, and the small Roman numerals: years, sizes, parts of a series.

use super::normalize::{FeatureKind, feature_id, features, has_digit, has_letter, words};
use super::vectorize::{IdfTable, SparseVector};

const CODE_CHARS_MIN: usize = 4;
const CODE_DIGITS_MIN: usize = 5;
const MEASURE_LETTERS_MAX: usize = 3;
const ROMAN: [&str; 9] = ["i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub id: u32,
    /// The longer, the more specific.
    pub char_count: u16,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Name {
    pub vector: SparseVector,
    /// Each word once with its surprise in nats, by id.
    pub words: Box<[(u32, f32)]>,
    /// Words, joined neighbours and splits, sorted: what another's words are looked for in.
    spellings: Box<[u32]>,
    pub codes: Box<[Code]>,
    pub numbers: Box<[u32]>,
}

impl Name {
    pub fn new(text: &str, table: &IdfTable) -> Self {
        let texts = words(text);
        let found = features(&texts);
        let id = |word: &String| feature_id(FeatureKind::Word, word);
        let mut words: Vec<(u32, f32)> = texts.iter().map(|word| (id(word), table.surprise(id(word)))).collect();
        words.sort_unstable_by_key(|(id, _)| *id);
        words.dedup_by_key(|(id, _)| *id);
        let mut spellings: Vec<u32> =
            found.iter().filter(|feature| feature.kind != FeatureKind::Trigram).map(|feature| feature.id).collect();
        spellings.sort_unstable();
        spellings.dedup();
        let codes = texts.iter().filter(|word| is_code(word));
        let codes = codes.map(|word| Code { id: id(word), char_count: word.chars().count() as u16 }).collect();
        Self {
            vector: SparseVector::new(&found, table),
            words: words.into(),
            spellings: spellings.into(),
            codes,
            numbers: texts.iter().filter(|word| is_number(word)).map(id).collect(),
        }
    }

    /// Whether the word stands in the text, in one of its spellings.
    pub fn spells(&self, word: u32) -> bool {
        self.spellings.binary_search(&word).is_ok()
    }
}

fn is_code(word: &str) -> bool {
    if has_digit(word) && has_letter(word) {
        return word.chars().count() >= CODE_CHARS_MIN && !is_measure(word);
    }
    word.len() >= CODE_DIGITS_MIN && word.bytes().all(|b| b.is_ascii_digit())
}

fn is_measure(word: &str) -> bool {
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    unit.len() < word.len() && unit.chars().count() <= MEASURE_LETTERS_MAX && unit.chars().all(char::is_alphabetic)
}

fn is_number(word: &str) -> bool {
    (has_digit(word) && !is_code(word)) || ROMAN.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_numbers_and_measures_are_told_apart() {
        let codes = ["pslx350h", "0101072302", "dscw120", "1fa2", "2512b001", "x100"];
        let numbers = ["60gb", "1080p", "350", "2004", "5.8ghz", "x10", "iv", "2.1"];
        let neither = ["sony", "black", "x", "müller"];
        for (words, wanted) in [(&codes[..], (true, false)), (&numbers, (false, true)), (&neither, (false, false))] {
            for word in words {
                assert_eq!((is_code(word), is_number(word)), wanted, "{word}");
            }
        }
    }

    #[test]
    fn a_name_spells_its_joined_words() {
        let name = Name::new("PS LX350H deck", &IdfTable::default());
        assert!(name.spells(feature_id(FeatureKind::Word, "pslx350h")));
        assert!(name.spells(feature_id(FeatureKind::Word, "deck")));
        assert!(!name.spells(feature_id(FeatureKind::Trigram, "dec")));
    }
}
