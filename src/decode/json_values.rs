//! Where JSON values stand that follow each other, or are the elements of one array.
//!
//! # Contract
//! An object whose first byte beside white space is `[` is one array, and its elements are the records; else the values
//! themselves are, with or without white space between them, each over as many lines as it likes.
//!
//! A value that breaks RFC 8259 or is too deep ends where its brackets close, strings left aside; where they do not, in
//! front of the next line that begins with `{`; where there is none, with the object. What begins no value ends in front of
//! the next `{`, line end or (in an array) `,` and `]`. So a broken value costs its neighbours nothing, unless they stand
//! behind it in the line and its brackets or quotes do not close.
//!
//! A comma with nothing before or behind it is a record, and a broken one; so is, behind the last element, the `[` of an
//! array that is not closed. A comma that is missing is not missed. What follows the array is read as values.

use std::ops::Range;

use super::scan::{Bracket, Scanner};

pub(super) struct JsonValues<'a> {
    bytes: &'a [u8],
    at: usize,
    state: State,
    depth_max: usize,
    record_bytes_max: usize,
    open: Vec<Bracket>,
    /// The start of the next line that begins with `{`, as far as it was looked for.
    next_line: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Start,
    /// No array, or behind it.
    Values,
    /// Behind the `[` at this place.
    First {
        array: usize,
    },
    /// Behind the comma.
    Element {
        array: usize,
        comma: usize,
    },
    /// Behind an element.
    Separator {
        array: usize,
    },
}

impl<'a> JsonValues<'a> {
    pub(super) fn new(bytes: &'a [u8], depth_max: usize, record_bytes_max: usize) -> Self {
        let (state, open) = (State::Start, Vec::new());
        Self { bytes, at: 0, state, depth_max, record_bytes_max, open, next_line: None }
    }

    fn value(&mut self, is_element: bool) -> Range<usize> {
        let start = self.at;
        let window = self.bytes.len().min(start.saturating_add(self.record_bytes_max).saturating_add(1));
        let mut scanner = Scanner::new(&self.bytes[start..window], std::mem::take(&mut self.open), self.depth_max);
        let len = scanner.value().ok().map(<[u8]>::len);
        self.open = scanner.into_open();
        let mut end = len.map_or_else(|| self.broken(start, is_element), |len| start + len);
        while is_space(self.bytes[end - 1]) {
            end -= 1;
        }
        self.at = end;
        start..end
    }

    /// The end of what begins at `start` and is no value; at least one byte behind it.
    fn broken(&mut self, start: usize, is_element: bool) -> usize {
        let rest = &self.bytes[start + 1..];
        let end = match self.bytes[start] {
            b'{' | b'[' => {
                let line = self.next_line(start + 1);
                return closed(&self.bytes[start..line]).map_or(line, |len| start + len);
            }
            b'"' => memchr::memchr(b'\n', rest),
            _ => rest.iter().position(|byte| matches!(byte, b'\n' | b'{') || is_element && matches!(byte, b',' | b']')),
        };
        end.map_or(self.bytes.len(), |end| start + 1 + end)
    }

    /// The start of the first line from `from` on that begins with `{`, or the end.
    fn next_line(&mut self, from: usize) -> usize {
        if let Some(line) = self.next_line.filter(|line| *line >= from) {
            return line;
        }
        let found = memchr::memmem::find(&self.bytes[from..], b"\n{");
        let line = found.map_or(self.bytes.len(), |found| from + found + 1);
        self.next_line = Some(line);
        line
    }
}

impl Iterator for JsonValues<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        loop {
            while self.bytes.get(self.at).is_some_and(|byte| is_space(*byte)) {
                self.at += 1;
            }
            let byte = self.bytes.get(self.at).copied();
            match (self.state, byte) {
                (State::Start, Some(b'[')) => self.state = State::First { array: self.at },
                (State::Start, _) => {
                    self.state = State::Values;
                    continue;
                }
                (State::Values, None) => return None,
                (State::Values, Some(_)) => return Some(self.value(false)),
                (State::Element { array, comma }, None | Some(b',' | b']')) => {
                    self.state = State::Separator { array };
                    return Some(comma..comma + 1);
                }
                (State::First { array } | State::Separator { array }, None) => {
                    self.state = State::Values;
                    return Some(array..array + 1);
                }
                (State::First { .. } | State::Separator { .. }, Some(b']')) => self.state = State::Values,
                (State::First { array }, Some(b',')) => {
                    self.state = State::Separator { array };
                    self.at += 1;
                    return Some(self.at - 1..self.at);
                }
                (State::Separator { array }, Some(b',')) => self.state = State::Element { array, comma: self.at },
                (State::First { array } | State::Element { array, .. } | State::Separator { array }, Some(_)) => {
                    self.state = State::Separator { array };
                    return Some(self.value(true));
                }
            }
            self.at += 1;
        }
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

/// Length of what its brackets close, whatever stands between them; `None`: they do not, or a string is left open in its line.
fn closed(bytes: &[u8]) -> Option<usize> {
    let mut open = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            close @ (b'}' | b']') => {
                if open.pop() != Some(close) {
                    return None;
                }
                if open.is_empty() {
                    return Some(at + 1);
                }
            }
            b'"' => loop {
                at += 1;
                match bytes.get(at)? {
                    b'"' => break,
                    b'\\' => at += 1,
                    b'\n' => return None,
                    _ => {}
                }
            },
            _ => {}
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<&str> {
        JsonValues::new(text.as_bytes(), 8, 100).map(|range| &text[range]).collect()
    }

    #[test]
    fn values_follow_each_other_with_or_without_white_space() {
        assert_eq!(
            values("{}{\"a\":\"}{\"}\n\n {\n\"b\": [1]\n}\t{}"),
            ["{}", "{\"a\":\"}{\"}", "{\n\"b\": [1]\n}", "{}"]
        );
        assert_eq!(values(" 1 \"x\" null{}"), ["1", "\"x\"", "null", "{}"]);
        assert_eq!(values(" \n"), [""; 0]);
    }

    #[test]
    fn an_array_is_its_elements() {
        assert_eq!(values("\n[{}, {\"a\":[1,2]}\n,{\n}]\n"), ["{}", "{\"a\":[1,2]}", "{\n}"]);
        assert_eq!(values("[]"), [""; 0]);
        assert_eq!(values("[[1],2]"), ["[1]", "2"]);
        assert_eq!(values("[{}]{}[{}]"), ["{}", "{}", "[{}]"]);
    }

    #[test]
    fn what_an_array_lacks_is_a_record() {
        assert_eq!(values("[{},,{}]"), ["{}", ",", "{}"]);
        assert_eq!(values("[,{}]"), [",", "{}"]);
        assert_eq!(values("[,]"), [","]);
        assert_eq!(values("[{},]"), ["{}", ","]);
        assert_eq!(values("[{}"), ["{}", "["]);
        assert_eq!(values("[{},"), ["{}", ",", "["]);
        assert_eq!(values("[{} {}]"), ["{}", "{}"]);
        assert_eq!(values("["), ["["]);
    }

    #[test]
    fn a_broken_value_costs_its_neighbours_nothing() {
        assert_eq!(values("{}{\"a\":01}{}"), ["{}", "{\"a\":01}", "{}"]);
        assert_eq!(values("[{},{\"a\":NaN},{}]"), ["{}", "{\"a\":NaN}", "{}"]);
        assert_eq!(values("{}\n{\"a\":\n{}\n{}"), ["{}", "{\"a\":", "{}", "{}"]);
        assert_eq!(values("{}\n{\"a\":\"x\n{}"), ["{}", "{\"a\":\"x", "{}"]);
        assert_eq!(values("{]\n{}"), ["{]", "{}"]);
        assert_eq!(values("nope {} nope\n{}"), ["nope", "{}", "nope", "{}"]);
        assert_eq!(values("}{}]{}"), ["}", "{}", "]", "{}"]);
        assert_eq!(values("[x,{},\"y\n,{}]"), ["x", "{}", "\"y", "{}"]);
        assert_eq!(values("[[[[[[[[[1]]]]]]]]]{}\n{}")[..1], ["[[[[[[[[1]]]]]]]]"]);
        assert_eq!(values("1{{{{{{{{{}}}}}}}}}{}"), ["1", "{{{{{{{{{}}}}}}}}}", "{}"]);
    }
}
