//! Where in a record a column's value stands: `$.user.id`, `$.items[0].sku`, `$['odd name']`.
//!
//! # Contract
//! The part of JSONPath (RFC 9535) that names one value: a name after each `.`, a name in quotes or an index from 0 in
//! each pair of brackets, a name first. Wildcards, slices, filters and indexes from the end are refused.

use std::fmt;

/// Steps of a path; a deeper record is cut by `limits.json_depth_max` anyway.
const STEPS_MAX: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonPath {
    first: String,
    rest: Vec<PathStep>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathStep {
    /// Into an object.
    Name(String),
    /// Into an array, from 0.
    Index(usize),
}

impl JsonPath {
    /// The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('$').ok_or("a path begins with `$.`, as `$.user.id` does")?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = match rest.as_bytes()[0] {
                b'.' => name(&rest[1..])?,
                b'[' => bracket(&rest[1..])?,
                _ => return Err(format!("expected `.` or `[` before `{rest}`")),
            };
            steps.push(step);
            rest = after;
        }
        if steps.len() > STEPS_MAX {
            return Err(format!("a path has up to {STEPS_MAX} steps"));
        }
        let mut steps = steps.into_iter();
        match steps.next() {
            Some(PathStep::Name(first)) => Ok(Self { first, rest: steps.collect() }),
            _ => Err("a record is an object: the first step is a name, as in `$.user`".to_owned()),
        }
    }

    /// The record's field in which the value stands.
    pub fn first(&self) -> &str {
        &self.first
    }

    /// The steps from there.
    pub fn rest(&self) -> &[PathStep] {
        &self.rest
    }
}

fn name(text: &str) -> Result<(PathStep, &str), String> {
    let end = text.find(['.', '[']).unwrap_or(text.len());
    let name = &text[..end];
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii())
        && !name.starts_with(|c: char| c.is_ascii_digit());
    match name {
        "" => Err("a name is missing behind `.`".to_owned()),
        _ if is_plain => Ok((PathStep::Name(name.to_owned()), &text[end..])),
        _ => Err(format!(
            "write `{name}` in brackets and quotes: ['{name}']; `*` and other choices name no single value"
        )),
    }
}

/// Behind `[`.
fn bracket(text: &str) -> Result<(PathStep, &str), String> {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '\'' | '"')) else {
        let (index, after) = text.split_once(']').ok_or("`]` is missing")?;
        let is_index = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
        let index = index.parse().ok().filter(|_| is_index);
        let index = index.ok_or("in brackets stands a name in quotes, or one index from 0")?;
        return Ok((PathStep::Index(index), after));
    };
    let (mut name, mut characters) = (String::new(), text.char_indices().skip(1));
    while let Some((at, c)) = characters.next() {
        if c == quote {
            let after = text[at + 1..].strip_prefix(']').ok_or("`]` is missing behind a quote")?;
            return Ok((PathStep::Name(name), after));
        }
        let c = if c == '\\' {
            characters.next().map(|(_, c)| c).filter(|c| matches!(c, '\\' | '\'' | '"'))
        } else {
            Some(c)
        };
        name.push(c.ok_or("behind `\\` stands a quote or another `\\`")?);
    }
    Err(format!("a quote {quote} is not closed"))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        PathStep::Name(self.first.clone()).fmt(f)?;
        self.rest.iter().try_for_each(|step| step.fmt(f))
    }
}

impl fmt::Display for PathStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(text) if name(text).is_ok_and(|(_, rest)| rest.is_empty()) => write!(f, ".{text}"),
            Self::Name(text) => write!(f, "['{}']", text.replace('\\', "\\\\").replace('\'', "\\'")),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_back_as_it_is_written() {
        for text in ["$.user", "$.user.id", "$.items[0].sku", "$['odd name'].x", r"$['it\'s \\ odd'][12]", "$.größe"]
        {
            assert_eq!(JsonPath::parse(text).map(|path| path.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(JsonPath::parse(r#"$["user"]['id']"#), JsonPath::parse("$.user.id"));
    }

    #[test]
    fn what_names_no_single_value_is_refused_with_what_to_write() {
        for (text, expected) in [
            ("user.id", "begins with `$.`"),
            ("$", "the first step is a name"),
            ("$[0]", "the first step is a name"),
            ("$.a..b", "a name is missing"),
            ("$.a.", "a name is missing"),
            ("$.a.*", "name no single value"),
            ("$.user id", "['user id']"),
            ("$.a[*]", "one index from 0"),
            ("$.a[-1]", "one index from 0"),
            ("$.a[0:2]", "one index from 0"),
            ("$.a[+1]", "one index from 0"),
            ("$.a[1", "`]` is missing"),
            ("$.a['b'", "`]` is missing"),
            ("$.a['b", "is not closed"),
            (r"$.a['\n']", "stands a quote"),
            ("$a", "expected `.` or `[`"),
        ] {
            let told = JsonPath::parse(text).expect_err(text);
            assert!(told.contains(expected), "{text}: {told}");
        }
        assert!(JsonPath::parse(&format!("${}", ".a".repeat(STEPS_MAX + 1))).is_err());
    }
}
