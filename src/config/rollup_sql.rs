//! The SQL of an aggregate → PostgreSQL's, in which no row can make it fail.
//!
//! # Rules
//! - Columns stand inside aggregate functions: count, sum, avg, min, max, bool_and, bool_or. They give the same in whatever
//!   order rows are read, so sums of float64 are refused: they are cast to numeric first.
//! - A load must not stop for a value: arithmetic is that of numeric, which does not overflow, and by nought makes null.
//! - Nothing depends on the clock, on chance or on the session: what is not listed here is refused.

use std::collections::BTreeSet;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, DataType, DuplicateTreatment, ExactNumberInfo, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArguments, Ident, ObjectNamePart, Spanned, UnaryOperator, Value,
};
use datafusion::sql::sqlparser::tokenizer::Location;

use super::check_columns::type_name;
use super::error::did_you_mean;
use super::expression::{folded, parse};
use super::{Field, FieldType};

const AGGREGATES: [&str; 7] = ["count", "sum", "avg", "min", "max", "bool_and", "bool_or"];
const FUNCTIONS: [&str; 9] = ["coalesce", "nullif", "abs", "round", "greatest", "least", "lower", "upper", "length"];

/// What is wrong with it; line and column count from 1 within the SQL.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SqlProblem {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

/// PostgreSQL's SQL over the fact `f`, and the columns that it names.
pub(super) fn aggregate(sql: &str, fields: &[Field]) -> Result<(String, Vec<String>), SqlProblem> {
    let parsed = parse(sql).map_err(|(line, column, message)| {
        let help = Some("an aggregate such as `sum(amount)` or `count(*)`".to_owned());
        SqlProblem { line, column, message: format!("the aggregate is no SQL: {message}"), help }
    })?;
    let mut walk = Walk { fields, columns: BTreeSet::new(), within: false, aggregate_count: 0 };
    let made = walk.expr(&parsed)?;
    if walk.aggregate_count == 0 {
        let help = format!("aggregate functions: {}", AGGREGATES.join(", "));
        return Err(SqlProblem {
            line: 1,
            column: 1,
            message: "there is no aggregate function in it".to_owned(),
            help: Some(help),
        });
    }
    Ok((made.sql, walk.columns.into_iter().collect()))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Whole, or decimal.
    Number,
    Float,
    Text,
    Boolean,
    Time,
    Uuid,
    Json,
    /// Null, which is of every type.
    Any,
}

impl Kind {
    fn of(field: FieldType) -> Self {
        match field {
            FieldType::Int32 | FieldType::Int64 | FieldType::Decimal { .. } => Self::Number,
            FieldType::Float64 => Self::Float,
            FieldType::Utf8 => Self::Text,
            FieldType::Boolean => Self::Boolean,
            FieldType::TimestampMs => Self::Time,
            FieldType::Uuid => Self::Uuid,
            FieldType::Json => Self::Json,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Float => "float64",
            Self::Text => "text",
            Self::Boolean => "a boolean",
            Self::Time => "a time",
            Self::Uuid => "a uuid",
            Self::Json => "JSON",
            Self::Any => "null",
        }
    }
}

struct Made {
    sql: String,
    kind: Kind,
}

struct Walk<'a> {
    fields: &'a [Field],
    columns: BTreeSet<String>,
    /// Whether an aggregate function is around.
    within: bool,
    aggregate_count: usize,
}

type Walked = Result<Made, SqlProblem>;

impl Walk<'_> {
    fn expr(&mut self, expr: &Expr) -> Walked {
        match expr {
            Expr::Nested(inner) => {
                let inner = self.expr(inner)?;
                Ok(Made { sql: format!("({})", inner.sql), kind: inner.kind })
            }
            Expr::Identifier(ident) => self.column(ident),
            Expr::Value(value) => literal(&value.value, value.span.start),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => {
                Ok(Made { sql: format!("(NOT {})", self.boolean(expr)?), kind: Kind::Boolean })
            }
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                Ok(Made { sql: format!("(- {})", self.number(expr)?), kind: Kind::Number })
            }
            Expr::BinaryOp { left, op, right } => self.binary(left, op, right),
            Expr::IsNull(inner) => self.is_null(inner, "IS NULL"),
            Expr::IsNotNull(inner) => self.is_null(inner, "IS NOT NULL"),
            Expr::InList { expr, list, negated } => {
                let mut made = self.same(std::iter::once(&**expr).chain(list))?;
                let (of, not) = (made.remove(0), if *negated { "NOT " } else { "" });
                Ok(Made { sql: format!("({of} {not}IN ({}))", made.join(", ")), kind: Kind::Boolean })
            }
            Expr::Between { expr, negated, low, high } => {
                let made = self.same([&**expr, &**low, &**high].into_iter())?;
                let not = if *negated { "NOT " } else { "" };
                let sql = format!("({} {not}BETWEEN {} AND {})", made[0], made[1], made[2]);
                Ok(Made { sql, kind: Kind::Boolean })
            }
            Expr::Case { operand: None, conditions, else_result, .. } => {
                let mut sql = "CASE".to_owned();
                let results = conditions.iter().map(|when| &when.result).chain(else_result.as_deref());
                let (results, kind) = self.alike(results)?;
                for (when, result) in conditions.iter().zip(&results) {
                    sql.push_str(&format!(" WHEN {} THEN {result}", self.boolean(&when.condition)?));
                }
                if else_result.is_some() {
                    sql.push_str(&format!(" ELSE {}", results[results.len() - 1]));
                }
                Ok(Made { sql: format!("{sql} END"), kind })
            }
            Expr::Cast { kind: CastKind::Cast | CastKind::DoubleColon, expr: inner, data_type, .. } => {
                self.cast(expr, inner, data_type)
            }
            Expr::Function(call) => self.call(expr, call),
            _ => Err(at(expr, format!("`{expr}` cannot stand in an aggregate"), Some(known()))),
        }
    }

    fn column(&mut self, ident: &Ident) -> Walked {
        let name = folded(ident);
        let problem = |message, help| SqlProblem {
            line: ident.span.start.line,
            column: ident.span.start.column,
            message,
            help: Some(help),
        };
        let Some(field) = self.fields.iter().find(|field| field.name == name) else {
            let columns = self.fields.iter().map(|field| field.name.as_str());
            return Err(problem(
                format!("there is no column `{}`", ident.value),
                did_you_mean(&ident.value, "columns", columns),
            ));
        };
        if !self.within {
            let help = format!("write `max({name})`, or group by it");
            return Err(problem(format!("column `{name}` has many values in a cell"), help));
        }
        self.columns.insert(name.clone());
        Ok(Made { sql: format!("f.\"{name}\""), kind: Kind::of(field.data_type) })
    }

    fn binary(&mut self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Walked {
        match op {
            BinaryOperator::Plus | BinaryOperator::Minus | BinaryOperator::Multiply => {
                let sql = format!("({} {op} {})", self.number(left)?, self.number(right)?);
                Ok(Made { sql, kind: Kind::Number })
            }
            BinaryOperator::Divide | BinaryOperator::Modulo => {
                let sql = format!("({} {op} nullif({}, 0))", self.number(left)?, self.number(right)?);
                Ok(Made { sql, kind: Kind::Number })
            }
            BinaryOperator::And | BinaryOperator::Or => {
                let sql = format!("({} {op} {})", self.boolean(left)?, self.boolean(right)?);
                Ok(Made { sql, kind: Kind::Boolean })
            }
            BinaryOperator::Eq
            | BinaryOperator::NotEq
            | BinaryOperator::Lt
            | BinaryOperator::LtEq
            | BinaryOperator::Gt
            | BinaryOperator::GtEq => {
                let made = self.same([left, right].into_iter())?;
                Ok(Made { sql: format!("({} {op} {})", made[0], made[1]), kind: Kind::Boolean })
            }
            _ => Err(at(left, format!("operator `{op}` cannot stand in an aggregate"), Some(known()))),
        }
    }

    fn is_null(&mut self, inner: &Expr, sql: &str) -> Walked {
        let inner = self.expr(inner)?;
        Ok(Made { sql: format!("({} {sql})", inner.sql), kind: Kind::Boolean })
    }

    /// As numeric: whole numbers of the server's own types overflow.
    fn number(&mut self, expr: &Expr) -> Result<String, SqlProblem> {
        let made = self.expr(expr)?;
        match made.kind {
            Kind::Number | Kind::Any => Ok(format!("({})::numeric", made.sql)),
            Kind::Float => Err(float(expr)),
            kind => Err(at(expr, format!("`{expr}` is {}, not a number", kind.as_str()), None)),
        }
    }

    fn boolean(&mut self, expr: &Expr) -> Result<String, SqlProblem> {
        let made = self.expr(expr)?;
        match made.kind {
            Kind::Boolean | Kind::Any => Ok(made.sql),
            kind => Err(at(expr, format!("`{expr}` is {}, not a boolean", kind.as_str()), None)),
        }
    }

    /// Things that are compared with each other.
    fn same<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>) -> Result<Vec<String>, SqlProblem> {
        Ok(self.alike(exprs)?.0)
    }

    /// Values of one kind. A literal is a time or a uuid where the others are; a time says its offset, which is the session's otherwise.
    fn alike<'e>(&mut self, exprs: impl Iterator<Item = &'e Expr>) -> Result<(Vec<String>, Kind), SqlProblem> {
        let (mut made, mut all) = (Vec::new(), Kind::Any);
        for expr in exprs {
            let one = self.expr(expr)?;
            if one.kind == Kind::Json {
                return Err(at(expr, format!("`{expr}` is JSON, of which one value has many spellings"), None));
            }
            let is_text = matches!(expr, Expr::Value(_)) && one.kind == Kind::Text;
            all = match (all, one.kind) {
                (kind, Kind::Text) if is_text => kind,
                (Kind::Any, kind) | (kind, Kind::Any) => kind,
                (kind, other) if kind == other => kind,
                (Kind::Number | Kind::Float, Kind::Number | Kind::Float) => Kind::Float,
                (kind, other) => return Err(unlike(expr, other, kind)),
            };
            made.push((expr, one.sql, is_text));
        }
        if all == Kind::Any && made.iter().any(|(.., is_text)| *is_text) {
            all = Kind::Text;
        }
        let as_kind = |(expr, sql, is_text): (&Expr, String, bool)| match all {
            Kind::Text | Kind::Any => Ok(sql),
            _ if !is_text => Ok(sql),
            Kind::Time if chrono::DateTime::parse_from_rfc3339(sql.trim_matches('\'')).is_ok() => {
                Ok(format!("{sql}::timestamptz"))
            }
            Kind::Uuid if uuid::Uuid::try_parse(sql.trim_matches('\'')).is_ok() => Ok(format!("{sql}::uuid")),
            Kind::Time => {
                let help = "write it as `'2026-01-31T12:00:00Z'`".to_owned();
                Err(at(expr, format!("`{expr}` is no time with an offset"), Some(help)))
            }
            kind => Err(unlike(expr, Kind::Text, kind)),
        };
        Ok((made.into_iter().map(as_kind).collect::<Result<_, _>>()?, all))
    }

    fn cast(&mut self, expr: &Expr, inner: &Expr, data_type: &DataType) -> Walked {
        let made = self.expr(inner)?;
        let is_number = matches!(made.kind, Kind::Number | Kind::Float | Kind::Any);
        let unbound = ExactNumberInfo::None;
        match data_type {
            DataType::Numeric(bounds) | DataType::Decimal(bounds) if is_number && *bounds == unbound => {
                Ok(Made { sql: format!("({})::numeric", made.sql), kind: Kind::Number })
            }
            DataType::Text if made.kind != Kind::Time => {
                Ok(Made { sql: format!("({})::text", made.sql), kind: Kind::Text })
            }
            _ => {
                let help =
                    "numbers can be cast to numeric (without digits), and everything but times to text".to_owned();
                Err(at(expr, format!("`{expr}` may fail for some value"), Some(help)))
            }
        }
    }

    fn call(&mut self, expr: &Expr, call: &Function) -> Walked {
        let ident = call.name.0.last().and_then(ObjectNamePart::as_ident);
        let name = ident.map(folded).unwrap_or_default();
        let is_plain = call.over.is_none()
            && call.within_group.is_empty()
            && call.null_treatment.is_none()
            && call.parameters == FunctionArguments::None
            && call.name.0.len() == 1;
        let FunctionArguments::List(list) = &call.args else {
            return Err(at(expr, format!("`{expr}` cannot stand in an aggregate"), Some(known())));
        };
        if !is_plain || !list.clauses.is_empty() {
            return Err(at(
                expr,
                format!("`{name}` is not called plainly"),
                Some("arguments, DISTINCT and FILTER are understood".to_owned()),
            ));
        }
        let mut arguments = Vec::new();
        for argument in &list.args {
            match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => arguments.push(Some(expr)),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) => arguments.push(None),
                _ => return Err(at(expr, format!("`{argument}` is no argument of `{name}`"), None)),
            }
        }
        if AGGREGATES.contains(&name.as_str()) {
            let distinct = list.duplicate_treatment == Some(DuplicateTreatment::Distinct);
            return self.aggregate(expr, &name, distinct, &arguments, call.filter.as_deref());
        }
        if !FUNCTIONS.contains(&name.as_str()) {
            return Err(at(expr, format!("`{name}` cannot be called in an aggregate"), Some(known())));
        }
        let arguments: Vec<&Expr> = arguments.into_iter().flatten().collect();
        if call.filter.is_some() || list.duplicate_treatment.is_some() || arguments.len() != list.args.len() {
            return Err(at(expr, format!("`{name}` is no aggregate function"), None));
        }
        self.function(expr, &name, &arguments)
    }

    fn aggregate(
        &mut self,
        expr: &Expr,
        name: &str,
        distinct: bool,
        arguments: &[Option<&Expr>],
        filter: Option<&Expr>,
    ) -> Walked {
        if self.within {
            return Err(at(expr, format!("`{name}` stands inside another aggregate function"), None));
        }
        self.aggregate_count += 1;
        self.within = true;
        let (inner, kind) = match (name, arguments) {
            ("count", [None]) if !distinct => ("*".to_owned(), Kind::Number),
            (_, [Some(argument)]) => {
                let made = self.expr(argument)?;
                let kind = match (name, made.kind) {
                    ("count", _) | ("sum" | "avg", Kind::Number | Kind::Any) => Kind::Number,
                    ("sum" | "avg", Kind::Float) => return Err(float(argument)),
                    ("min" | "max", Kind::Number | Kind::Float | Kind::Text | Kind::Time) => made.kind,
                    ("bool_and" | "bool_or", Kind::Boolean) => Kind::Boolean,
                    (_, kind) => {
                        let message = format!("`{argument}` is {}, which `{name}` does not take", kind.as_str());
                        return Err(at(argument, message, None));
                    }
                };
                (made.sql, kind)
            }
            _ => return Err(at(expr, format!("`{name}` takes one argument"), None)),
        };
        let distinct = if distinct { "DISTINCT " } else { "" };
        let mut sql = format!("{name}({distinct}{inner})");
        if let Some(filter) = filter {
            sql.push_str(&format!(" FILTER (WHERE {})", self.boolean(filter)?));
        }
        self.within = false;
        Ok(Made { sql, kind })
    }

    fn function(&mut self, expr: &Expr, name: &str, arguments: &[&Expr]) -> Walked {
        let takes = |count: &str| Err(at(expr, format!("`{name}` takes {count}"), None));
        match (name, arguments) {
            ("coalesce" | "greatest" | "least", [_, ..]) | ("nullif", [_, _]) => {
                let (made, kind) = self.alike(arguments.iter().copied())?;
                Ok(Made { sql: format!("{name}({})", made.join(", ")), kind })
            }
            ("coalesce" | "greatest" | "least", _) => takes("one argument or more"),
            ("nullif", _) => takes("two arguments"),
            ("abs", [argument]) => Ok(Made { sql: format!("abs({})", self.number(argument)?), kind: Kind::Number }),
            ("round", [argument]) => Ok(Made { sql: format!("round({})", self.number(argument)?), kind: Kind::Number }),
            ("round", [argument, Expr::Value(digits)]) if is_digits(&digits.value) => {
                let sql = format!("round({}, {})", self.number(argument)?, digits.value);
                Ok(Made { sql, kind: Kind::Number })
            }
            ("lower" | "upper" | "length", [argument]) => {
                let made = self.expr(argument)?;
                if !matches!(made.kind, Kind::Text | Kind::Any) {
                    return Err(at(argument, format!("`{argument}` is {}, not text", made.kind.as_str()), None));
                }
                let kind = if name == "length" { Kind::Number } else { Kind::Text };
                Ok(Made { sql: format!("{name}({})", made.sql), kind })
            }
            ("round", _) => takes("a number, and how many digits stay, as a literal up to 30"),
            _ => takes("one argument"),
        }
    }
}

fn literal(value: &Value, place: Location) -> Walked {
    let (sql, kind) = match value {
        Value::Number(text, _) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') => {
            (text.clone(), Kind::Number)
        }
        Value::SingleQuotedString(text) => (format!("'{}'", text.replace('\'', "''")), Kind::Text),
        Value::Boolean(value) => (value.to_string(), Kind::Boolean),
        Value::Null => ("NULL".to_owned(), Kind::Any),
        _ => {
            let message = format!("`{value}` cannot stand in an aggregate");
            return Err(SqlProblem { line: place.line, column: place.column, message, help: Some(known()) });
        }
    };
    Ok(Made { sql, kind })
}

fn is_digits(value: &Value) -> bool {
    matches!(value, Value::Number(text, _) if text.parse::<u8>().is_ok_and(|digits| digits <= 30))
}

fn unlike(expr: &Expr, is: Kind, other: Kind) -> SqlProblem {
    at(expr, format!("`{expr}` is {}, what it goes with is {}", is.as_str(), other.as_str()), None)
}

fn float(expr: &Expr) -> SqlProblem {
    let help = format!("write `CAST({expr} AS numeric)`");
    at(
        expr,
        format!("`{expr}` is {}, whose sums depend on the order of rows", type_name(FieldType::Float64)),
        Some(help),
    )
}

fn known() -> String {
    format!(
        "aggregate functions: {}; functions: {}; + - * / %, comparisons, AND, OR, NOT, IN, BETWEEN, CASE, CAST",
        AGGREGATES.join(", "),
        FUNCTIONS.join(", ")
    )
}

fn at(expr: &Expr, message: String, help: Option<String>) -> SqlProblem {
    let start = expr.span().start;
    SqlProblem { line: start.line.max(1), column: start.column.max(1), message, help }
}
