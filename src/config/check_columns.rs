//! The columns of a connector, and the rules for naming one elsewhere.

use chrono::DateTime;

use super::check_connector::{Report, is_name};
use super::error::{did_you_mean, nearest};
use super::raw_connector::{RawField, RawTimestampFormat};
use super::yaml::Step;
use super::yaml::Step::{Index, Key};
use super::{Field, FieldType, JsonPath, TimestampFormat};

/// PostgreSQL cuts longer names off. Source: PostgreSQL 15 manual, 4.1.1 (NAMEDATALEN − 1), read 2026-11.
pub(super) const NAME_BYTES_MAX: usize = 63;
/// Source: Apache Arrow 59, DECIMAL128_MAX_PRECISION.
const DECIMAL_PRECISION_MAX: u8 = 38;
/// Levels of a staged file's path that are no columns: readers of Hive paths would see them twice.
const PATH_LEVELS: [&str; 3] = ["type", "date", "hour"];
const TYPE_NAMES: [&str; 9] =
    ["utf8", "int32", "int64", "float64", "boolean", "decimal(precision,scale)", "timestamp_ms", "uuid", "json"];

/// The connector's columns, those with a problem included, so that naming one is not a second problem.
pub(super) struct Columns {
    pub(super) fields: Vec<Field>,
    /// Columns whose type could not be understood: nothing is said about uses of them.
    untyped: Vec<String>,
}

impl Columns {
    pub(super) fn check(raw: &[RawField], report: &mut Report<'_>) -> Self {
        let mut columns = Self { fields: Vec::new(), untyped: Vec::new() };
        for (index, field) in raw.iter().enumerate() {
            let at = |key| [Key("schema"), Index(index), Key(key)];
            check_name(&field.name, &at("name"), report);
            if let Some(first) = columns.fields.iter().position(|earlier| earlier.name == field.name) {
                let help = format!("it is already `schema[{first}]`; column names are given once");
                report.add(&at("name"), format!("there are two columns `{}`", field.name), help);
                continue;
            }
            let data_type = match parse_type(&field.data_type) {
                Ok(data_type) => data_type,
                Err((message, help)) => {
                    report.add(&at("type"), message, help);
                    columns.untyped.push(field.name.clone());
                    FieldType::Utf8
                }
            };
            let formats = formats(field, data_type, &columns.untyped, &at("formats"), report);
            let path = field.path.as_deref().and_then(|text| match JsonPath::parse(text) {
                Ok(path) => Some(path),
                Err(help) => {
                    report.add(&at("path"), format!("`{text}` is no path to a value"), help);
                    None
                }
            });
            let (name, header) = (field.name.clone(), field.header.clone());
            columns.fields.push(Field { name, data_type, required: field.required, formats, header, path });
        }
        columns
    }

    /// Those that SQL makes.
    pub(super) fn of_fields(fields: &[Field]) -> Self {
        Self { fields: fields.to_vec(), untyped: Vec::new() }
    }

    pub(super) fn find(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether its type could not be understood.
    fn is_untyped(&self, name: &str) -> bool {
        self.untyped.iter().any(|untyped| untyped == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|field| field.name.as_str())
    }

    pub(super) fn of_type(&self, wanted: FieldType) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |field| field.data_type == wanted).map(|field| field.name.as_str())
    }

    /// That a column exists, and is of a type where one is wanted: `<rule> a utf8 column`. True where it is.
    pub(super) fn check_one(
        &self,
        name: &str,
        at: &[Step<'_>],
        wanted: Option<FieldType>,
        rule: &str,
        report: &mut Report<'_>,
    ) -> bool {
        let Some(field) = self.find(name) else {
            let known: Vec<&str> = match wanted {
                Some(wanted) => self.of_type(wanted).collect(),
                None => self.names().collect(),
            };
            let what = wanted.map_or("columns".to_owned(), |wanted| format!("{} columns", type_name(wanted)));
            // The near miss may be a column of another type: name it, whatever comes next.
            let help = match nearest(name, known.iter().copied()).or_else(|| nearest(name, self.names())) {
                Some(near) => format!("did you mean `{near}`? {what}: {}", known.join(", ")),
                None => did_you_mean(name, &what, known),
            };
            report.add(at, format!("there is no column `{name}`"), help);
            return false;
        };
        if let Some(wanted) = wanted.filter(|wanted| *wanted != field.data_type && !self.untyped.contains(&field.name))
        {
            let message = format!(
                "column `{name}` is {}, but {rule} {}",
                type_name(field.data_type),
                if rule.ends_with(" is") { format!("a {} column", type_name(wanted)) } else { type_name(wanted) }
            );
            let known: Vec<&str> = self.of_type(wanted).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            report.add(at, message, format!("{} columns: {known}", type_name(wanted)));
            return false;
        }
        true
    }

    /// A column whose type `fits`: of a type that `what` names. `None` where it is not there, or of another type.
    pub(super) fn check_fitting(
        &self,
        name: &str,
        at: &[Step<'_>],
        fits: impl Fn(FieldType) -> bool,
        what: &str,
        report: &mut Report<'_>,
    ) -> Option<&Field> {
        let known = || self.fields.iter().filter(|field| fits(field.data_type)).map(|field| field.name.as_str());
        let Some(field) = self.find(name) else {
            let help = did_you_mean(name, &format!("{what} columns"), known());
            report.add(at, format!("there is no column `{name}`"), help);
            return None;
        };
        if self.untyped.contains(&field.name) {
            return None;
        }
        if !fits(field.data_type) {
            let known: Vec<&str> = known().collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let message = format!("column `{name}` is {}, but this works on {what}", type_name(field.data_type));
            report.add(at, message, format!("{what} columns: {known}"));
            return None;
        }
        Some(field)
    }

    /// A list of columns, each once.
    pub(super) fn check_list(
        &self,
        names: &[String],
        at: &[Step<'_>],
        wanted: Option<FieldType>,
        rule: &str,
        report: &mut Report<'_>,
    ) -> Vec<String> {
        for (index, name) in names.iter().enumerate() {
            let at: Vec<Step<'_>> = at.iter().copied().chain([Index(index)]).collect();
            self.check_one(name, &at, wanted, rule, report);
            if names[..index].contains(name) {
                report.add(&at, format!("`{name}` stands twice in one list"), None);
            }
        }
        names.to_vec()
    }

    pub(super) fn check_required(&self, name: &str, at: &[Step<'_>], because: &str, report: &mut Report<'_>) {
        if self.find(name).is_some_and(|field| !field.required) {
            let help = format!("add `required: true` to the column: {because}");
            report.add(at, format!("column `{name}` is not required"), help);
        }
    }

    /// A level of the path that is neither date nor hour.
    pub(super) fn check_level<'a>(
        &self,
        name: &str,
        levels: impl Iterator<Item = &'a str>,
        at: &[Step<'_>],
        report: &mut Report<'_>,
    ) {
        match self.find(name) {
            None => report.add(at, format!("there is no column `{name}`"), did_you_mean(name, "known", levels)),
            Some(_) => _ = self.check_one(name, at, Some(FieldType::Utf8), "levels of the path are", report),
        }
    }

    /// Values for nulls, each spelt as its column's type; in the order of their names.
    pub(super) fn check_defaults<'a>(
        &self,
        names: impl Iterator<Item = &'a str>,
        at: &[Step<'_>],
        report: &mut Report<'_>,
    ) -> Vec<(String, String)> {
        let mut checked = Vec::new();
        for name in names {
            let at: Vec<Step<'_>> = at.iter().copied().chain([Key(name)]).collect();
            let Some(field) = self.find(name) else {
                let help = did_you_mean(name, "columns", self.names());
                report.add_at_key(&at, format!("there is no column `{name}`"), help);
                continue;
            };
            if field.required && field.data_type != FieldType::Utf8 && !self.is_untyped(name) {
                let message =
                    format!("column `{name}` is required: a row without it is a dead letter before it is cleaned");
                report.add_at_key(&at, message, "leave out `required`, or the default".to_owned());
            }
            let text = report.root.find(&at).scalar_text();
            if let Err(expected) = parse_value(field, &text) {
                let message =
                    format!("`{text}` is no value of column `{name}`, which is {}", type_name(field.data_type));
                report.add(&at, message, format!("expected {expected}"));
            }
            checked.push((name.to_owned(), text));
        }
        checked
    }
}

pub(super) fn check_name(name: &str, at: &[Step<'_>], report: &mut Report<'_>) {
    let reason = if name.starts_with('_') {
        "names that begin with an underscore belong to the lineage columns".to_owned()
    } else if PATH_LEVELS.contains(&name) {
        format!("`{name}=` is a level of the path of staged files; call the column something like `{name}_name`")
    } else if !is_name(name, &['_']) {
        "lower-case letters, digits and underscores, beginning with a letter".to_owned()
    } else if name.len() > NAME_BYTES_MAX {
        format!("at most {NAME_BYTES_MAX} characters: PostgreSQL cuts longer names off")
    } else {
        return;
    };
    report.add(at, format!("`{name}` cannot be a column's name"), reason);
}

/// As the connector spells it.
pub(super) fn type_name(data_type: FieldType) -> String {
    match data_type {
        FieldType::Utf8 => "utf8".to_owned(),
        FieldType::Int32 => "int32".to_owned(),
        FieldType::Int64 => "int64".to_owned(),
        FieldType::Float64 => "float64".to_owned(),
        FieldType::Boolean => "boolean".to_owned(),
        FieldType::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        FieldType::TimestampMs => "timestamp_ms".to_owned(),
        FieldType::Uuid => "uuid".to_owned(),
        FieldType::Json => "json".to_owned(),
    }
}

/// Message and help where it is none.
pub(super) fn parse_type(text: &str) -> Result<FieldType, (String, String)> {
    Ok(match text {
        "utf8" => FieldType::Utf8,
        "int32" => FieldType::Int32,
        "int64" => FieldType::Int64,
        "float64" => FieldType::Float64,
        "boolean" => FieldType::Boolean,
        "timestamp_ms" => FieldType::TimestampMs,
        "uuid" => FieldType::Uuid,
        "json" => FieldType::Json,
        _ if text.starts_with("decimal") => return parse_decimal(text),
        _ => {
            // What people bring along from other systems.
            let near = match text.to_lowercase().as_str() {
                "string" | "str" | "text" | "varchar" => Some("utf8"),
                "int" | "integer" => Some("int32"),
                "long" | "bigint" => Some("int64"),
                "float" | "double" | "number" => Some("float64"),
                "numeric" => Some("decimal(precision,scale)"),
                "timestamp" | "timestamptz" | "datetime" | "timestamp_us" | "timestamp_ns" => Some("timestamp_ms"),
                "object" | "struct" | "map" | "jsonb" => Some("json"),
                _ => None,
            };
            let types = TYPE_NAMES.join(", ");
            let help = match near {
                Some(near) => format!("did you mean `{near}`? types: {types}"),
                None => did_you_mean(text, "types", TYPE_NAMES),
            };
            return Err((format!("there is no type `{text}`"), help));
        }
    })
}

fn parse_decimal(text: &str) -> Result<FieldType, (String, String)> {
    let inside = text.strip_prefix("decimal(").and_then(|rest| rest.strip_suffix(')'));
    let numbers = inside.and_then(|inside| inside.split_once(','));
    let parsed = numbers.and_then(|(p, s)| Some((p.trim().parse::<u8>().ok()?, s.trim().parse::<u8>().ok()?)));
    let Some((precision, scale)) = parsed else {
        let help = "write `decimal(12,2)`: twelve digits, two of them behind the point".to_owned();
        return Err((format!("`{text}` lacks its precision and scale"), help));
    };
    if precision == 0 || precision > DECIMAL_PRECISION_MAX {
        let message = format!("a decimal of {precision} digits cannot be stored");
        return Err((message, format!("the precision is 1 to {DECIMAL_PRECISION_MAX}")));
    }
    if scale > precision {
        let message = format!("`{text}` has more digits behind the point ({scale}) than digits ({precision})");
        return Err((message, format!("the scale is 0 to {precision} here")));
    }
    Ok(FieldType::Decimal { precision, scale: scale.cast_signed() })
}

fn formats(
    field: &RawField,
    data_type: FieldType,
    untyped: &[String],
    at: &[Step<'_>],
    report: &mut Report<'_>,
) -> Vec<TimestampFormat> {
    if data_type != FieldType::TimestampMs {
        if field.formats.is_some() && !untyped.contains(&field.name) {
            let message = format!("`formats` means nothing for a {} column", type_name(data_type));
            report.add_at_key(at, message, "only timestamp_ms columns have formats".to_owned());
        }
        return Vec::new();
    }
    let Some(raw) = &field.formats else {
        return vec![TimestampFormat::Rfc3339, TimestampFormat::EpochMs];
    };
    let mut formats = Vec::new();
    for (index, format) in raw.iter().enumerate() {
        let format = match format {
            RawTimestampFormat::Rfc3339 => TimestampFormat::Rfc3339,
            RawTimestampFormat::EpochMs => TimestampFormat::EpochMs,
        };
        if formats.contains(&format) {
            let at: Vec<Step<'_>> = at.iter().copied().chain([Index(index)]).collect();
            report.add(&at, "the same format stands twice", None);
        } else {
            formats.push(format);
        }
    }
    formats
}

/// What was expected where the text is no value of the column.
pub(super) fn parse_value(field: &Field, text: &str) -> Result<(), String> {
    let (fits, expected) = match field.data_type {
        FieldType::Utf8 => (true, String::new()),
        FieldType::Int32 => (text.parse::<i32>().is_ok(), "a whole number of 32 bits".to_owned()),
        FieldType::Int64 => (text.parse::<i64>().is_ok(), "a whole number of 64 bits".to_owned()),
        FieldType::Float64 => (text.parse::<f64>().is_ok_and(f64::is_finite), "a number".to_owned()),
        FieldType::Boolean => (matches!(text, "true" | "false"), "`true` or `false`".to_owned()),
        FieldType::Decimal { precision, scale } => {
            let whole = i32::from(precision) - i32::from(scale);
            let expected = format!("at most {whole} digits before and {scale} behind the point");
            (is_decimal(text, whole.unsigned_abs() as usize, scale.unsigned_abs() as usize), expected)
        }
        FieldType::TimestampMs => {
            let text_fits =
                field.formats.contains(&TimestampFormat::Rfc3339) && DateTime::parse_from_rfc3339(text).is_ok();
            let number_fits = field.formats.contains(&TimestampFormat::EpochMs) && text.parse::<i64>().is_ok();
            (text_fits || number_fits, "a timestamp in one of the column's formats".to_owned())
        }
        FieldType::Uuid => {
            let fits = text.len() == 36 && uuid::Uuid::try_parse(text).is_ok();
            (fits, "hexadecimal digits in groups of 8-4-4-4-12".to_owned())
        }
        FieldType::Json => {
            let parsed = serde_json::from_str::<serde_json::Value>(text);
            (parsed.is_ok_and(|value| !value.is_null()), "JSON text, not null".to_owned())
        }
    };
    if fits { Ok(()) } else { Err(expected) }
}

fn is_decimal(text: &str, whole_digits_max: usize, scale: usize) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let are_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    !whole.is_empty()
        && are_digits(whole)
        && are_digits(fraction)
        && !digits.ends_with('.')
        && whole.trim_start_matches('0').len() <= whole_digits_max
        && fraction.len() <= scale
}
