//! Checks a YAML tree against the JSON Schema of the types it is read into.
//!
//! The schema is the one that editors get (`sluice schema`), made from the same types, so what an
//! editor underlines and what is refused here are the same. Only what schemars writes for our types
//! is understood; a pattern is left to the checks that can say what it means.

use std::path::Path;

use serde_json::Value as Json;

use super::error::{ConfigError, did_you_mean, nearest};
use super::yaml::{Node, Value};

/// Adds a problem for every key and value that does not fit. Unknown keys leave the tree, so that the
/// rest can be read.
pub(super) fn check(file: &Path, node: &mut Node, schema: &Json, problems: &mut Vec<ConfigError>) {
    Checker { file, root: schema, problems }.check(node, schema, "");
}

/// The schema at the end of a way of keys; `None` where there is no such key.
pub(super) fn schema_at<'a>(root: &'a Json, way: &[&str]) -> Option<&'a Json> {
    way.iter().try_fold(root, |schema, key| {
        let schema = present(root, schema);
        schema
            .get("properties")
            .and_then(|known| known.get(key))
            .or_else(|| schema.get("additionalProperties").filter(|others| others.is_object()))
    })
}

/// Whether a value there is text and nothing else.
pub(super) fn takes_text_only(root: &Json, schema: &Json) -> bool {
    let kinds: Vec<&str> = alternatives(root, schema).iter().flat_map(|one| kinds(one)).collect();
    !kinds.is_empty() && kinds.iter().all(|kind| matches!(*kind, "string" | "null"))
}

/// Dotted names of all settings that hold a value, mappings with free keys included.
pub(super) fn leaves(root: &Json) -> Vec<String> {
    fn walk(root: &Json, schema: &Json, name: &str, found: &mut Vec<String>) {
        match present(root, schema).get("properties").and_then(Json::as_object) {
            Some(known) => known.iter().for_each(|(key, value)| {
                let dot = if name.is_empty() { "" } else { "." };
                walk(root, value, &format!("{name}{dot}{key}"), found);
            }),
            None => found.push(name.to_owned()),
        }
    }
    let mut found = Vec::new();
    walk(root, root, "", &mut found);
    found
}

struct Checker<'a> {
    file: &'a Path,
    root: &'a Json,
    problems: &'a mut Vec<ConfigError>,
}

impl Checker<'_> {
    fn report(&mut self, node: &Node, message: String, help: Option<String>) {
        self.problems.push(ConfigError::Invalid { place: node.origin.place(self.file), message, help });
    }

    fn check(&mut self, node: &mut Node, schema: &Json, name: &str) {
        let root = self.root;
        let options = alternatives(root, schema);
        let words: Vec<&str> = options.iter().flat_map(|option| words(option)).collect();
        if !words.is_empty() {
            self.check_word(node, &words, name);
            return;
        }
        if options.iter().all(|option| kinds(option).is_empty()) {
            return; // anything goes
        }
        let Some(option) = options.iter().find(|option| kinds(option).iter().any(|kind| fits(node, kind))) else {
            let message = format!("{} must be {}, found {}", quoted(name), expected(&options), node.described());
            self.report(node, message, type_help(node, &options));
            return;
        };
        match &mut node.value {
            Value::List(_) => self.check_list(node, option, name),
            Value::Map(_) => self.check_map(node, option, name),
            Value::Int(number) => {
                let number = *number;
                let (minimum, maximum) = bounds(option);
                if number < minimum {
                    self.report(node, format!("{} must be at least {minimum}", quoted(name)), None);
                } else if number > maximum {
                    self.report(node, format!("{} must be at most {maximum}", quoted(name)), None);
                }
            }
            _ => {}
        }
    }

    fn check_word(&mut self, node: &Node, words: &[&str], name: &str) {
        let written = node.scalar_text();
        if matches!(node.value, Value::List(_) | Value::Map(_) | Value::Null) {
            let message = format!("{} must be one word, found {}", quoted(name), node.described());
            self.report(node, message, Some(format!("known: {}", words.join(", "))));
        } else if !words.contains(&written.as_str()) {
            let message = format!("{} cannot be `{written}`", quoted(name));
            self.report(node, message, Some(did_you_mean(&written, "known", words.iter().copied())));
        }
    }

    fn check_list(&mut self, node: &mut Node, schema: &Json, name: &str) {
        let count = if let Value::List(items) = &node.value { items.len() } else { 0 };
        if schema.get("minItems").and_then(Json::as_u64).is_some_and(|minimum| (count as u64) < minimum) {
            self.report(node, format!("{} is empty", quoted(name)), None);
        }
        if let (Value::List(items), Some(item_schema)) = (&mut node.value, schema.get("items")) {
            for (index, item) in items.iter_mut().enumerate() {
                self.check(item, item_schema, &format!("{name}[{index}]"));
            }
        }
    }

    fn check_map(&mut self, node: &mut Node, schema: &Json, name: &str) {
        let empty = serde_json::Map::new();
        let known = schema.get("properties").and_then(Json::as_object).unwrap_or(&empty);
        let others = schema.get("additionalProperties").filter(|others| others.is_object());
        let inside = if name.is_empty() { String::new() } else { format!(" in {}", quoted(name)) };
        self.check_key_count(node, schema, name, known);
        if others.is_none() {
            self.check_keys(node, known, &inside);
        }
        for key in schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str) {
            if node.get(key).is_none() {
                let help = known.get(key).and_then(|schema| first_sentence(self.root, schema));
                let help = help.map(|meaning| format!("`{key}`: {meaning}"));
                self.report(node, format!("the key `{key}` is missing{inside}"), help);
            }
        }
        let Value::Map(entries) = &mut node.value else { return };
        for (key, value) in entries {
            let key = key.scalar_text();
            let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
            if let Some(schema) = known.get(&key).or(others) {
                self.check(value, schema, &inner);
            }
        }
    }

    /// Reports unknown keys. One that is nearly a known key is taken for it from here on, so that a
    /// slip makes one message and not also those that follow from it; others are taken out.
    fn check_keys(&mut self, node: &mut Node, known: &serde_json::Map<String, Json>, inside: &str) {
        let Value::Map(entries) = &mut node.value else { return };
        let mut given: Vec<String> = entries.iter().map(|(key, _)| key.scalar_text()).collect();
        let mut kept = Vec::with_capacity(entries.len());
        for (mut key, value) in entries.drain(..) {
            let text = key.scalar_text();
            if known.contains_key(&text) {
                kept.push((key, value));
                continue;
            }
            let names = || known.keys().map(String::as_str);
            let help = did_you_mean(&text, "known keys", names());
            self.report(&key, format!("unknown key `{text}`{inside}"), Some(help));
            if let Some(near) = nearest(&text, names()).filter(|near| !given.iter().any(|given| given == near)) {
                given.push(near.to_owned());
                key.value = Value::Text(near.to_owned());
                kept.push((key, value));
            }
        }
        *entries = kept;
    }

    fn check_key_count(&mut self, node: &Node, schema: &Json, name: &str, known: &serde_json::Map<String, Json>) {
        let count = if let Value::Map(entries) = &node.value { entries.len() as u64 } else { 0 };
        let limit = |key: &str| schema.get(key).and_then(Json::as_u64);
        if limit("minProperties").is_some_and(|minimum| count < minimum)
            || limit("maxProperties").is_some_and(|maximum| count > maximum)
        {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let message = format!("{} must have exactly one key, found {count}", quoted(name));
            self.report(node, message, Some(format!("one of: {}", names.join(", "))));
        }
    }
}

/// Follows `$ref`, which draft 7 wraps in an `allOf` of one where a description stands beside it.
fn resolved<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    if let Some([only]) = schema.get("allOf").and_then(Json::as_array).map(Vec::as_slice) {
        return resolved(root, only);
    }
    let reference = schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.strip_prefix('#'));
    match reference.and_then(|pointer| root.pointer(pointer)) {
        Some(target) => resolved(root, target),
        None => schema,
    }
}

/// The schemas of which one must fit.
fn alternatives<'a>(root: &'a Json, schema: &'a Json) -> Vec<&'a Json> {
    let schema = resolved(root, schema);
    match schema.get("anyOf").or_else(|| schema.get("oneOf")).and_then(Json::as_array) {
        Some(options) => options.iter().flat_map(|option| alternatives(root, option)).collect(),
        None => vec![schema],
    }
}

/// The alternative that is not null.
fn present<'a>(root: &'a Json, schema: &'a Json) -> &'a Json {
    let options = alternatives(root, schema);
    options.iter().copied().find(|option| kinds(option) != ["null"]).unwrap_or(schema)
}

fn words(schema: &Json) -> Vec<&str> {
    let one = schema.get("const").and_then(Json::as_str);
    let many = schema.get("enum").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str);
    one.into_iter().chain(many).collect()
}

fn kinds(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(kind)) => vec![kind],
        Some(Json::Array(kinds)) => kinds.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The least and the greatest whole number, by the schema or by the integer's width.
fn bounds(schema: &Json) -> (i128, i128) {
    let (least, greatest) = match schema.get("format").and_then(Json::as_str) {
        Some("int16") => (i16::MIN.into(), i16::MAX.into()),
        Some("int32") => (i32::MIN.into(), i32::MAX.into()),
        Some("int64") => (i64::MIN.into(), i64::MAX.into()),
        Some("uint32") => (0, u32::MAX.into()),
        Some("uint64" | "uint") => (0, u64::MAX.into()),
        _ => (i128::MIN, i128::MAX),
    };
    let stated = |key| schema.get(key).and_then(Json::as_i64).map(i128::from);
    (stated("minimum").unwrap_or(least), stated("maximum").unwrap_or(greatest))
}

fn fits(node: &Node, kind: &str) -> bool {
    match &node.value {
        // `key:` with nothing behind it is a mistake even where the key may be left out.
        Value::Null => false,
        Value::Bool(_) => kind == "boolean",
        Value::Int(_) => matches!(kind, "integer" | "number"),
        Value::Float(_) => kind == "number",
        Value::Text(_) => kind == "string",
        Value::List(_) => kind == "array",
        Value::Map(_) => kind == "object",
    }
}

fn expected(options: &[&Json]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for kind in options.iter().flat_map(|option| kinds(option)) {
        let name = match kind {
            "boolean" => "`true` or `false`",
            "integer" => "a whole number",
            "number" => "a number",
            "string" => "text",
            "array" => "a list",
            "object" => "a mapping",
            _ => continue,
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" or ")
}

fn type_help(node: &Node, options: &[&Json]) -> Option<String> {
    let wants_text = options.iter().any(|option| kinds(option).contains(&"string"));
    match &node.value {
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if wants_text => {
            Some("put it in quotes to make it text".to_owned())
        }
        Value::Null => Some("write a value behind the colon".to_owned()),
        _ => options.iter().find_map(|option| option.get("properties").and_then(Json::as_object)).map(|known| {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            format!("its keys: {}", names.join(", "))
        }),
    }
}

fn first_sentence(root: &Json, schema: &Json) -> Option<String> {
    let text = schema.get("description").or_else(|| resolved(root, schema).get("description"))?.as_str()?;
    let text = text.split("\n\n").next()?.replace('\n', " ");
    Some(text.trim_end_matches('.').to_owned())
}

fn quoted(name: &str) -> String {
    if name.is_empty() { "the document".to_owned() } else { format!("`{name}`") }
}
