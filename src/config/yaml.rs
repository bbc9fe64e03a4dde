//! YAML as a tree in which every key and value knows where it stands.
//!
//! Connectors, topics and settings are read in three steps: this tree, the check of its shape
//! against the JSON Schema of the raw types (`shape`), and the raw types themselves. So a file's
//! problems are found all at once instead of up to the first, and each has its line and column.

use std::fmt;
use std::path::Path;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::error::{ConfigError, Place};

/// Where a node comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    File { line: u32, column: u32 },
    Environment(String),
    Flag(String),
}

impl Origin {
    pub(super) fn place(&self, file: &Path) -> Place {
        match self {
            Self::File { line, column } => Place::File { path: file.into(), line: *line, column: *column },
            Self::Environment(name) => Place::Environment(name.clone()),
            Self::Flag(name) => Place::Flag(name.clone()),
        }
    }
}

/// A key or a value.
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
    /// The bytes of the file that spell it; empty where it comes from elsewhere.
    span: std::ops::Range<usize>,
    /// A scalar exactly as it was spelt, quotes and all.
    pub(super) spelling: String,
}

pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// Keys are texts.
    Map(Vec<(Node, Node)>),
}

/// A step on the way to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

/// Reads one document. An empty file is an empty mapping.
pub(super) fn parse(path: &Path, text: &str) -> Result<Node, ConfigError> {
    let options = serde_saphyr::options! { strict_booleans: true, with_snippet: false };
    let mut node = serde_saphyr::from_str_with_options::<Node>(text, options).map_err(|error| {
        let location = error.location().unwrap_or(Location::UNKNOWN);
        ConfigError::Invalid { place: file_origin(location).place(path), message: syntax_message(&error), help: None }
    })?;
    if matches!(node.value, Value::Null) {
        node.value = Value::Map(Vec::new());
    }
    node.take_spellings(text);
    Ok(node)
}

/// Reads a value of the environment or of a flag as YAML would read a plain scalar.
pub(super) fn parse_scalar(text: &str, origin: Origin) -> Node {
    let value = match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (text.parse::<i128>(), text.parse::<f64>()) {
            (Ok(number), _) => Value::Int(number),
            (_, Ok(number)) if number.is_finite() => Value::Float(number),
            _ => Value::Text(text.to_owned()),
        },
    };
    Node { origin, value, span: 0..0, spelling: text.to_owned() }
}

/// The first sentence of the parser's message, without the position that it repeats.
fn syntax_message(error: &serde_saphyr::Error) -> String {
    if let serde_saphyr::Error::DuplicateMappingKey { key, .. } = error.without_snippet() {
        return format!("the key `{}` stands twice in one mapping", key.as_deref().unwrap_or("?"));
    }
    let text = error.without_snippet().to_string();
    let text = text.lines().next().unwrap_or_default().trim();
    let text = text.strip_prefix("error: ").unwrap_or(text);
    // `line 3 column 4: message` and `message at line 3, column 4` both occur.
    let text = match text.split_once(": ") {
        Some((head, tail)) if head.starts_with("line ") => tail,
        _ => text,
    };
    let text = text.find(" at line ").map_or(text, |end| &text[..end]);
    format!("not valid YAML: {text}")
}

fn file_origin(location: Location) -> Origin {
    let clamp = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Origin::File { line: clamp(location.line()), column: clamp(location.column()) }
}

impl Node {
    pub(super) fn text(value: impl Into<String>, origin: Origin) -> Self {
        Self { origin, value: Value::Text(value.into()), span: 0..0, spelling: String::new() }
    }

    pub(super) fn empty_map(origin: Origin) -> Self {
        Self { origin, value: Value::Map(Vec::new()), span: 0..0, spelling: String::new() }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A scalar as text: quotes taken off, numbers with all their digits.
    pub(super) fn scalar_text(&self) -> String {
        match &self.value {
            Value::Text(text) => text.clone(),
            _ => self.spelling.clone(),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|(name, _)| name.as_text() == Some(key)).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The node at the end of the way, or the last one that exists on it: where a list of one is
    /// written without brackets, its only element is the value itself.
    pub(super) fn find(&self, way: &[Step<'_>]) -> &Node {
        let next = match (way.first(), &self.value) {
            (Some(Step::Key(key)), _) => self.get(key),
            (Some(Step::Index(index)), Value::List(items)) => items.get(*index),
            (Some(Step::Index(_)), _) => return self.find(&way[1..]),
            (None, _) => None,
        };
        next.map_or(self, |next| next.find(&way[1..]))
    }

    /// The key that the way ends with, else as [`Node::find`].
    pub(super) fn find_key(&self, way: &[Step<'_>]) -> &Node {
        if let Some((Step::Key(last), before)) = way.split_last()
            && let Value::Map(entries) = &self.find(before).value
            && let Some((key, _)) = entries.iter().find(|(name, _)| name.as_text() == Some(*last))
        {
            return key;
        }
        self.find(way)
    }

    /// Puts `node` at the end of the way, making the mappings on it and replacing what stands there.
    pub(super) fn put(&mut self, way: &[&str], node: Node) {
        let Some((first, rest)) = way.split_first() else {
            *self = node;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            self.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut self.value else { return };
        let index = entries.iter().position(|(key, _)| key.as_text() == Some(first)).unwrap_or_else(|| {
            entries.push((Node::text(*first, node.origin.clone()), Node::empty_map(node.origin.clone())));
            entries.len() - 1
        });
        entries[index].1.put(rest, node);
    }

    /// For deserialising the raw types, once the shape is known to be right.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(value), _) => value.into(),
                (_, Ok(value)) => value.into(),
                _ => (*value as f64).into(),
            },
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.clone().into(),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries.iter().map(|(key, node)| (key.scalar_text(), node.to_json())).collect(),
        }
    }

    /// How people call what they wrote.
    pub(super) fn described(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Bool(true) => "`true`",
            Value::Bool(false) => "`false`",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    fn take_spellings(&mut self, source: &str) {
        match &mut self.value {
            Value::List(items) => items.iter_mut().for_each(|item| item.take_spellings(source)),
            Value::Map(entries) => entries.iter_mut().for_each(|(key, node)| {
                key.take_spellings(source);
                node.take_spellings(source);
            }),
            _ => source.get(self.span.clone()).unwrap_or_default().clone_into(&mut self.spelling),
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, defined } = Spanned::<Value>::deserialize(deserializer)?;
        let span = defined.span();
        let start = span.byte_offset().unwrap_or_default() as usize;
        let length = span.byte_len().unwrap_or_default() as usize;
        Ok(Self { origin: file_origin(referenced), value, span: start..start + length, spelling: String::new() })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// A mapping's key: whatever it looks like, it is text.
struct Key(Node);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self(Node::text(value, file_origin(referenced))))
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Int(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some((Key(key), node)) = entries.next_entry()? {
            map.push((key, node));
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Node {
        parse(Path::new("a.yaml"), text).unwrap()
    }

    fn at(node: &Node) -> (u32, u32) {
        match node.origin {
            Origin::File { line, column } => (line, column),
            _ => panic!("not from a file"),
        }
    }

    #[test]
    fn every_key_and_value_knows_where_it_stands() {
        let node = parsed("a: 1\nlist:\n  - {name: x, price: 0.10}\n");
        let way = [Step::Key("list"), Step::Index(0), Step::Key("price")];
        assert_eq!(at(node.find(&way)), (3, 22));
        assert_eq!(at(node.find_key(&way)), (3, 15));
        assert_eq!(node.find(&way).scalar_text(), "0.10");
    }

    #[test]
    fn a_single_value_stands_for_a_list_of_one() {
        let node = parsed("trim: currency\n");
        assert_eq!(at(node.find(&[Step::Key("trim"), Step::Index(0)])), (1, 7));
    }

    #[test]
    fn broken_yaml_is_told_with_its_place() {
        let error = parse(Path::new("a.yaml"), "a: [1, 2\nb: 3\n").map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("a.yaml:"), "{error}");
        let error = parse(Path::new("a.yaml"), "a: 1\na: 2\n").map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, "a.yaml:2:1: the key `a` stands twice in one mapping");
    }
}
