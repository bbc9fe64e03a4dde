//! Text into words and features.
//!
//! # Contract
//! The same text gives the same features in every process and version of [`SCHEME_VERSION`]: no locale, no
//! dictionary, no random state. Spellings that people use for one thing share features: `PS-LX350H`, `ps lx350h` and
//! `pslx350h`; `Müller` and `MULLER`; `2.0` and `2`.
//!
//! | kind | made from | example |
//! |---|---|---|
//! | word | runs of letters and digits, lower case, without accents | `lx350h` |
//! | joined | two neighbours of which one has a digit; meets the word of that spelling | `pslx350h` |
//! | split | runs of letters or of digits within a word that has both | `lx`, `350`, `h` |
//! | trigram | three characters of a word with its ends marked | `^lx`, `lx3`, …, `0h$` |

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Changes whenever the same text would give other features: tables and indexes of another version are not read.
pub const SCHEME_VERSION: u32 = 1;

/// What is looked at of one text; the rest is cut off.
pub const TEXT_CHARS_MAX: usize = 1024;
const WORDS_MAX: usize = 128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FeatureKind {
    Word,
    Joined,
    Split,
    Trigram,
}

/// One occurrence of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    pub id: u32,
    pub kind: FeatureKind,
}

/// Words of a text, in its order. Empty for a text without letters and digits.
pub fn words(text: &str) -> Vec<String> {
    let mut words = if text.is_ascii() {
        let end = text.len().min(TEXT_CHARS_MAX);
        split(text.as_bytes()[..end].iter().map(|byte| char::from(byte.to_ascii_lowercase())))
    } else {
        split(folded(text).into_iter())
    };
    words.truncate(WORDS_MAX);
    words
}

/// Lower case, without accents and in one spelling of each character.
fn folded(text: &str) -> Vec<char> {
    let first = text.chars().take(TEXT_CHARS_MAX).nfkd().filter(|c| !is_combining_mark(*c));
    first.flat_map(char::to_lowercase).filter(|c| !is_combining_mark(*c)).collect()
}

fn split(folded: impl Iterator<Item = char>) -> Vec<String> {
    let mut folded = folded.peekable();
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before = ' ';
    while let Some(c) = folded.next() {
        let is_next_digit = folded.peek().is_some_and(char::is_ascii_digit);
        let is_point = c == '.' && before.is_ascii_digit() && is_next_digit;
        // an apostrophe joins: `kid's`, `o'neill`
        let is_silent = matches!(c, '\'' | '\u{2019}') && before.is_alphabetic();
        if c.is_alphanumeric() || is_point {
            word.push(c);
        } else if !is_silent && !word.is_empty() {
            words.push(plain_number(std::mem::take(&mut word)));
        }
        before = c;
    }
    if !word.is_empty() {
        words.push(plain_number(word));
    }
    words
}

/// The words, a space between them: two texts with one spelling are the same name. What the alias table is asked for.
pub fn spelling(text: &str) -> String {
    words(text).join(" ")
}

/// `2.0` is `2`, `1.50` is `1.5`; a version of three parts stays.
fn plain_number(word: String) -> String {
    let is_decimal = word.bytes().all(|b| b.is_ascii_digit() || b == b'.') && word.matches('.').count() == 1;
    if !is_decimal {
        return word;
    }
    word.trim_end_matches('0').trim_end_matches('.').to_owned()
}

pub fn has_digit(word: &str) -> bool {
    word.bytes().any(|b| b.is_ascii_digit())
}

pub fn has_letter(word: &str) -> bool {
    word.chars().any(char::is_alphabetic)
}

/// Every occurrence of every feature.
pub fn features(words: &[String]) -> Vec<Feature> {
    let mut found = Vec::with_capacity(words.len() * 9);
    let mut add = |kind: FeatureKind, text: &str| found.push(Feature { id: feature_id(kind, text), kind });
    let mut padded = Vec::new();
    let mut trigram = String::new();
    for (place, word) in words.iter().enumerate() {
        add(FeatureKind::Word, word);
        if let Some(next) = words.get(place + 1)
            && (has_digit(word) || has_digit(next))
        {
            add(FeatureKind::Joined, &format!("{word}{next}"));
        }
        if has_digit(word) && has_letter(word) {
            runs(word).for_each(|run| add(FeatureKind::Split, run));
        }
        padded.clear();
        padded.push('^');
        padded.extend(word.chars());
        padded.push('$');
        for window in padded.windows(3) {
            trigram.clear();
            trigram.extend(window);
            add(FeatureKind::Trigram, &trigram);
        }
    }
    found
}

/// Runs of digits and of anything else.
pub fn runs(word: &str) -> impl Iterator<Item = &str> {
    let mut rest = word;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let other = |c: char| c.is_ascii_digit() != first.is_ascii_digit();
        let (run, after) = rest.split_at(rest.find(other).unwrap_or(rest.len()));
        rest = after;
        Some(run)
    })
}

/// Words, joined neighbours and splits share one space, so that each meets the others' spelling.
pub fn feature_id(kind: FeatureKind, text: &str) -> u32 {
    // FNV-1a, 64 bits; then the finalizer of MurmurHash3, because half of the bits are kept.
    let space: u8 = if kind == FeatureKind::Trigram { b't' } else { b'w' };
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in std::iter::once(space).chain(text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn ids(text: &str) -> BTreeSet<u32> {
        features(&words(text)).iter().filter(|f| f.kind != FeatureKind::Trigram).map(|f| f.id).collect()
    }

    #[test]
    fn spellings_of_one_thing_are_one() {
        assert_eq!(spelling("  Sony   PS-LX350H, Black "), "sony ps lx350h black");
        assert_eq!(spelling("MÜLLER ﬁne ½ Ⅳ"), "muller fine 1 2 iv");
        assert_eq!(spelling("Kid's 2.0 1.50 1.2.0 3. .5 10,000"), "kids 2 1.5 1.2.0 3 5 10 000");
        assert_eq!(spelling("– ./!"), "");
    }

    #[test]
    fn a_model_code_meets_its_other_spellings() {
        let code = feature_id(FeatureKind::Word, "pslx350h");
        for text in ["pslx350h", "PS LX350H", "ps-lx350h", "PSLX 350H"] {
            assert!(ids(text).contains(&code), "{text}");
        }
        assert!(!ids("ps lx 360h").contains(&code));
        assert_eq!(runs("pslx350h2").collect::<Vec<_>>(), ["pslx", "350", "h", "2"]);
    }

    #[test]
    fn letters_alone_are_not_joined() {
        assert!(!ids("black board").contains(&feature_id(FeatureKind::Word, "blackboard")));
    }

    #[test]
    fn the_numbers_of_features_never_change() {
        let numbers = [(FeatureKind::Word, "sony"), (FeatureKind::Joined, "sony"), (FeatureKind::Trigram, "^so")];
        assert_eq!(numbers.map(|(kind, text)| feature_id(kind, text)), [2_853_047_171, 2_853_047_171, 1_791_239_294]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_and_reading_the_spelling_again_changes_nothing(text in any::<String>()) {
            let once = spelling(&text);
            prop_assert_eq!(spelling(&once), once.clone());
            features(&words(&text));
        }

        #[test]
        fn the_short_way_for_ascii_reads_the_same(text in "[ -~\t\n]{0,60}") {
            prop_assert_eq!(split(folded(&text).into_iter()), words(&text));
        }

        #[test]
        fn case_does_not_matter(text in "[a-zA-Z0-9 .-]{0,40}") {
            prop_assert_eq!(spelling(&text.to_uppercase()), spelling(&text));
        }
    }
}
