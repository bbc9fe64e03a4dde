//! JSON syntax (RFC 8259) over bytes that are UTF-8: where values begin and end, nothing about their meaning.
//!
//! Nothing is skipped unread: whatever [`Scanner`] walks over is checked to the last escape. Brackets are
//! kept on a list, not on the call stack, so that no input can overflow it.

/// Why a record is no JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SyntaxError {
    /// The byte of the record, from 0, and what should have stood there.
    Malformed {
        at: usize,
        expected: &'static str,
    },
    TooDeep {
        at: usize,
    },
}

impl SyntaxError {
    pub(super) fn at(self) -> usize {
        match self {
            Self::Malformed { at, .. } | Self::TooDeep { at } => at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Object,
    Array,
}

/// A string as it stands between its quotes; its escapes are sound.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub(super) raw: &'a [u8],
    pub(super) has_escapes: bool,
}

/// A number as it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Number<'a> {
    pub(super) raw: &'a [u8],
    /// It has neither point nor exponent.
    pub(super) is_integer: bool,
}

pub(super) struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    open: Vec<Bracket>,
    depth_max: usize,
}

impl<'a> Scanner<'a> {
    /// `open` is a list to use again, whatever is in it.
    pub(super) fn new(bytes: &'a [u8], mut open: Vec<Bracket>, depth_max: usize) -> Self {
        open.clear();
        Self { bytes, at: 0, open, depth_max }
    }

    pub(super) fn into_open(self) -> Vec<Bracket> {
        self.open
    }

    /// How many bytes are taken.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Behind the white space at `at`.
    pub(super) fn skip_space(&self, at: usize) -> usize {
        at + self.bytes[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count()
    }

    /// What was taken from `start` on.
    pub(super) fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start..self.at]
    }

    /// The next byte that is no white space, not taken; 0 at the end, which begins nothing either.
    pub(super) fn peek(&mut self) -> u8 {
        while let Some(&byte) = self.bytes.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return byte;
            }
            self.at += 1;
        }
        0
    }

    /// Nothing but white space may follow.
    pub(super) fn end(&mut self) -> Result<(), SyntaxError> {
        self.peek();
        if self.at < self.bytes.len() { Err(self.expected("the end of the record")) } else { Ok(()) }
    }

    /// Takes `{` (the caller has seen it). True where a field follows, false where `}` was taken.
    pub(super) fn begin_object(&mut self) -> Result<bool, SyntaxError> {
        self.open(Bracket::Object)?;
        if self.peek() == b'}' {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes `,` or `}` behind a field. True where another field follows.
    pub(super) fn next_field(&mut self) -> Result<bool, SyntaxError> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b'}' => {
                self.close();
                Ok(false)
            }
            _ => Err(self.expected("`,` or `}`")),
        }
    }

    /// Takes `[` (the caller has seen it). True where an element follows, false where `]` was taken.
    pub(super) fn begin_array(&mut self) -> Result<bool, SyntaxError> {
        self.open(Bracket::Array)?;
        if self.peek() == b']' {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes `,` or `]` behind an element. True where another element follows.
    pub(super) fn next_element(&mut self) -> Result<bool, SyntaxError> {
        match self.peek() {
            b',' => {
                self.at += 1;
                Ok(true)
            }
            b']' => {
                self.close();
                Ok(false)
            }
            _ => Err(self.expected("`,` or `]`")),
        }
    }

    /// Takes a field's name and its colon.
    pub(super) fn key(&mut self) -> Result<Text<'a>, SyntaxError> {
        if self.peek() != b'"' {
            return Err(self.expected("a field's name"));
        }
        let key = self.string()?;
        if self.peek() != b':' {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(key)
    }

    /// Takes `known` where just that stands here, without white space before it.
    #[inline]
    pub(super) fn take(&mut self, known: &[u8]) -> bool {
        let there = self.bytes.get(self.at..self.at + known.len());
        let is_there = there.is_some_and(|there| are_same(there, known));
        if is_there {
            self.at += known.len();
        }
        is_there
    }

    /// Takes any value and gives its text, without white space around it.
    pub(super) fn value(&mut self) -> Result<&'a [u8], SyntaxError> {
        self.peek();
        let start = self.at;
        let depth = self.open.len();
        loop {
            let is_complete = match self.peek() {
                b'"' => self.string().map(|_| true)?,
                b'-' | b'0'..=b'9' => self.number().map(|_| true)?,
                b'{' => {
                    let has_fields = self.begin_object()?;
                    if has_fields {
                        self.key()?;
                    }
                    !has_fields
                }
                b'[' => !self.begin_array()?,
                b't' => self.literal(b"true")?,
                b'f' => self.literal(b"false")?,
                b'n' => self.literal(b"null")?,
                _ => return Err(self.expected("a value")),
            };
            if is_complete && self.leave(depth)? {
                return Ok(&self.bytes[start..self.at]);
            }
        }
    }

    /// Behind a complete value: closes what ends here. True where that is everything above `depth`,
    /// false where another value follows.
    fn leave(&mut self, depth: usize) -> Result<bool, SyntaxError> {
        while self.open.len() > depth {
            let byte = self.peek();
            match (self.open.last(), byte) {
                (Some(Bracket::Object), b',') => {
                    self.at += 1;
                    self.key()?;
                    return Ok(false);
                }
                (Some(Bracket::Array), b',') => {
                    self.at += 1;
                    return Ok(false);
                }
                (Some(Bracket::Object), b'}') | (Some(Bracket::Array), b']') => self.close(),
                (Some(Bracket::Object), _) => return Err(self.expected("`,` or `}`")),
                _ => return Err(self.expected("`,` or `]`")),
            }
        }
        Ok(true)
    }

    /// Takes a string (the caller has seen its quote).
    pub(super) fn string(&mut self) -> Result<Text<'a>, SyntaxError> {
        let bytes = self.bytes;
        let start = self.at + 1;
        let mut at = start;
        let mut has_escapes = false;
        loop {
            at = plain_end(bytes, at);
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Text { raw: &bytes[start..at], has_escapes });
                }
                Some(b'\\') => {
                    has_escapes = true;
                    at = escape(bytes, at)?;
                }
                Some(0..0x20) => {
                    return Err(SyntaxError::Malformed { at, expected: "an escape instead of a control character" });
                }
                Some(_) => at += 1,
                None => return Err(SyntaxError::Malformed { at, expected: "the end of a string" }),
            }
        }
    }

    /// Takes a number (the caller has seen its first byte).
    pub(super) fn number(&mut self) -> Result<Number<'a>, SyntaxError> {
        let start = self.at;
        if self.bytes[self.at] == b'-' {
            self.at += 1;
        }
        match self.bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.expected("a digit")),
        }
        let mut is_integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            is_integer = false;
            self.at += 1;
            self.some_digits()?;
        }
        if matches!(self.bytes.get(self.at), Some(b'e' | b'E')) {
            is_integer = false;
            self.at += 1;
            if matches!(self.bytes.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(Number { raw: &self.bytes[start..self.at], is_integer })
    }

    fn some_digits(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        self.digits();
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn digits(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn literal(&mut self, literal: &'static [u8]) -> Result<bool, SyntaxError> {
        if !self.bytes[self.at..].starts_with(literal) {
            return Err(self.expected("a value"));
        }
        self.at += literal.len();
        Ok(true)
    }

    fn open(&mut self, bracket: Bracket) -> Result<(), SyntaxError> {
        if self.open.len() >= self.depth_max {
            return Err(SyntaxError::TooDeep { at: self.at });
        }
        self.open.push(bracket);
        self.at += 1;
        Ok(())
    }

    fn close(&mut self) {
        self.open.pop();
        self.at += 1;
    }

    fn expected(&self, expected: &'static str) -> SyntaxError {
        SyntaxError::Malformed { at: self.at, expected }
    }
}

/// A number that is the whole of some text, such as a string's.
pub(super) fn whole_number(text: &[u8]) -> Option<Number<'_>> {
    if !matches!(text.first(), Some(b'-' | b'0'..=b'9')) {
        return None;
    }
    let mut scanner = Scanner::new(text, Vec::new(), 0);
    scanner.number().ok().filter(|number| number.raw.len() == text.len())
}

/// Writes what a string means. Its escapes are sound: a [`Scanner`] has seen them.
pub(super) fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(length) = memchr::memchr(b'\\', &raw[at..]) {
        out.extend_from_slice(&raw[at..at + length]);
        at += length + 2;
        let plain = match raw[at - 1] {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let mut unit = hex4(raw, at).unwrap_or_default();
                at += 4;
                if (0xd800..0xdc00).contains(&unit) {
                    let low = hex4(raw, at + 2).unwrap_or_default();
                    at += 6;
                    unit = 0x1_0000 + ((unit & 0x3ff) << 10) + (low & 0x3ff);
                }
                let character = char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                continue;
            }
            // `"`, `\` and `/` stand for themselves.
            itself => itself,
        };
        out.push(plain);
    }
    out.extend_from_slice(&raw[at..]);
}

/// The same length is given. Names are short: comparing words where they stand costs less than a call does.
#[inline]
fn are_same(one: &[u8], other: &[u8]) -> bool {
    const WORD: usize = 8;
    let word = |bytes: &[u8; WORD]| u64::from_le_bytes(*bytes);
    let (Some(one_last), Some(other_last)) = (one.last_chunk::<WORD>(), other.last_chunk::<WORD>()) else {
        return one == other;
    };
    let (one_words, _) = one.as_chunks::<WORD>();
    let (other_words, _) = other.as_chunks::<WORD>();
    let differ = |(one, other): (&[u8; WORD], &[u8; WORD])| word(one) ^ word(other);
    let differing = one_words.iter().zip(other_words).map(differ).fold(0, |all, bits| all | bits);
    differing | (word(one_last) ^ word(other_last)) == 0
}

/// Bytes of a string looked at together once it is no short one.
const LONG: usize = 32;

/// The first byte from `at` on that ends a plain run of a string (a quote, a backslash, or a control character), or one
/// of the last few bytes before which there is none.
#[inline]
fn plain_end(bytes: &[u8], at: usize) -> usize {
    let mut at = match next_stop(bytes, at, 2) {
        Ok(stop) => return stop,
        Err(behind) => behind,
    };
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<LONG>) {
        if has_stop(chunk) {
            break;
        }
        at += LONG;
    }
    next_stop(bytes, at, usize::MAX).unwrap_or_else(|behind| behind)
}

/// Looks at so many words at most; where no plain run ends in them, `Err` with the byte behind them.
#[inline]
fn next_stop(bytes: &[u8], mut at: usize, words_max: usize) -> Result<usize, usize> {
    for _ in 0..words_max {
        let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) else { break };
        let stops = string_stops(u64::from_le_bytes(*word));
        if stops != 0 {
            return Ok(at + (stops.trailing_zeros() / 8) as usize);
        }
        at += word.len();
    }
    Err(at)
}

/// Whether a plain run ends there. Without a branch for each byte, so that the compiler takes many at once.
#[inline]
fn has_stop(chunk: &[u8; LONG]) -> bool {
    let is_stop = |byte: &u8| u8::from(*byte == b'"') | u8::from(*byte == b'\\') | u8::from(*byte < 0x20);
    chunk.iter().fold(0, |stops, byte| stops | is_stop(byte)) != 0
}

/// Bit 7 of the first byte, in memory order, that ends a plain run of a string. Bytes behind it may be marked without
/// reason (a borrow), never those before it.
fn string_stops(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word;
    let equals = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (equals(b'"') | equals(b'\\') | below(word, 0x20)) & TOPS
}

/// Checks the escape that begins at a backslash; gives the place behind it.
fn escape(bytes: &[u8], at: usize) -> Result<usize, SyntaxError> {
    match bytes.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let unit = hex4(bytes, at + 2).ok_or(SyntaxError::Malformed { at, expected: "four hexadecimal digits" })?;
            match unit {
                0xd800..0xdc00 => {
                    let low = bytes[at + 6..].strip_prefix(b"\\u").and_then(|_| hex4(bytes, at + 8));
                    match low {
                        Some(0xdc00..0xe000) => Ok(at + 12),
                        _ => Err(SyntaxError::Malformed { at, expected: "a pair of surrogates" }),
                    }
                }
                0xdc00..0xe000 => Err(SyntaxError::Malformed { at, expected: "a pair of surrogates" }),
                _ => Ok(at + 6),
            }
        }
        _ => Err(SyntaxError::Malformed { at, expected: "an escape" }),
    }
}

fn hex4(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |value, digit| Some(value * 16 + char::from(*digit).to_digit(16)?))
}
