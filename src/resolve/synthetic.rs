//! A made-up catalogue with families of products, to measure at any size without anybody's data.

use std::collections::{HashMap, HashSet};

use super::evaluate::Pairs;

const WORD_COUNT: u64 = 6000;
const BRAND_COUNT: u64 = 300;
const COLOURS: [&str; 10] = ["black", "white", "silver", "red", "blue", "green", "pink", "grey", "brown", "gold"];
const SIZES: [&str; 6] = ["32 gb", "40 inch", "2.0", "500 ml", "12 pack", "1080p"];

/// `member_count` products in families of 12 to 30 that differ in colour and the end of their code; `query_count` of
/// them written by somebody else: words left out, misspelt, in another order. The same for the same counts.
pub fn catalogue(member_count: usize, query_count: usize) -> Pairs {
    let mut dice = Dice(0x5eed);
    let mut reference = Vec::with_capacity(member_count);
    while reference.len() < member_count {
        let words: Vec<String> = (0..2 + dice.below(4)).map(|_| word(dice.skewed(WORD_COUNT))).collect();
        let name = format!("{} {}", word(WORD_COUNT + dice.below(BRAND_COUNT)), words.join(" "));
        let letters: String = (0..2 + dice.below(2)).map(|_| char::from(b'A' + dice.below(26) as u8)).collect();
        let code = format!("{letters}{}", 10 + dice.below(9990));
        for variant in 0..12 + dice.below(19) {
            let colour = COLOURS[dice.below(10) as usize];
            let size = if dice.below(5) < 2 { SIZES[dice.below(6) as usize] } else { "" };
            let end = ["", "B", "XL"][dice.below(3) as usize];
            reference.push(format!("{name} {colour} {size} - {code}{end}{variant}"));
        }
    }
    reference.truncate(member_count);
    let mut pairs = Pairs { reference, queries: Vec::new(), truth: HashMap::new() };
    for query in 0..query_count {
        let place = dice.below(member_count as u64) as usize;
        pairs.queries.push(rewritten(&pairs.reference[place], &mut dice));
        pairs.truth.insert(query, HashSet::from([place]));
    }
    pairs
}

fn rewritten(text: &str, dice: &mut Dice) -> String {
    let mut words: Vec<String> = text.to_lowercase().split_whitespace().map(str::to_owned).collect();
    words.retain(|_| dice.below(8) > 0);
    for word in &mut words {
        if word.len() > 4 && dice.below(7) == 0 {
            word.remove(1 + dice.below(word.len() as u64 - 2) as usize);
        }
    }
    if dice.below(3) == 0 && !words.is_empty() {
        words.rotate_left(1);
    }
    words.join(" ")
}

/// Syllables of the number.
fn word(number: u64) -> String {
    let mut rest = number + 90;
    let mut word = String::new();
    while rest > 0 {
        word.push(char::from(b"bcdfghjklmnprstvwz"[(rest % 18) as usize]));
        word.push(char::from(b"aeiou"[(rest / 18 % 5) as usize]));
        rest /= 90;
    }
    word
}

/// SplitMix64. Source: Steele, Lea, Flood, OOPSLA 2014.
pub(super) struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Small numbers more often.
    fn skewed(&mut self, end: u64) -> u64 {
        let (one, two) = (self.below(end), self.below(end));
        one * two / end
    }
}
