//! Checks the SQL of an expectation when the connector is read, not when the first row arrives.
//!
//! Three steps: parse; resolve every column, with its place inside the YAML; plan against the
//! connector's Arrow schema, which tells the type. An expression must be boolean and must depend on
//! the row alone: what depends on the clock or on chance would make a replay differ from its first run.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, ExprSchemable, Volatility};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, ObjectNamePart, visit_expressions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::check_columns::type_name;
use super::check_connector::Report;
use super::error::{ConfigError, did_you_mean, nearest};
use super::yaml::{Node, Origin, Step};
use super::{Connector, RESCUED_COLUMN};

/// Plans expressions; made once for all connectors.
pub(super) struct Expressions {
    context: SessionContext,
}

impl Expressions {
    pub(super) fn new() -> Self {
        Self { context: SessionContext::new() }
    }

    pub(super) fn check(&self, connector: &Connector, sql: &str, way: &[Step<'_>], report: &mut Report<'_>) {
        let node = report.root.find(way);
        let mut tell = |line: u64, column: u64, message: String, help: Option<String>| {
            let place = place_inside(node, line, column).place(report.file);
            report.problems.push(ConfigError::Invalid { place, message, help });
        };
        let parsed = match parse(sql) {
            Ok(parsed) => parsed,
            Err((line, column, message)) => {
                let help = "a boolean SQL expression over the columns, such as `amount > 0`".to_owned();
                tell(line, column, format!("the expression is no SQL: {message}"), Some(help));
                return;
            }
        };
        let columns = known_columns(connector);
        let functions = self.known_functions();
        let unknown = unknown_names(&parsed, &columns, &functions);
        for (ident, what) in &unknown {
            let help = match *what {
                "column" => did_you_mean(&ident.value, "columns", columns.iter().copied()),
                // There are some two hundred of them.
                _ => match nearest(&ident.value, functions.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "scalar functions of DataFusion can be called: lower, length, abs, coalesce, …".to_owned(),
                },
            };
            let start = ident.span.start;
            tell(start.line, start.column, format!("there is no {what} `{}`", ident.value), Some(help));
        }
        if unknown.is_empty()
            && let Err((message, help)) = self.plan(connector, sql)
        {
            tell(1, 1, message, help.or_else(|| types_of(connector, &parsed)));
        }
    }

    fn known_functions(&self) -> Vec<String> {
        let state = self.context.state();
        let mut names: Vec<String> = state.scalar_functions().keys().cloned().collect();
        // Known, and refused for a better reason.
        names.extend(state.aggregate_functions().keys().chain(state.window_functions().keys()).cloned());
        names.sort();
        names
    }

    /// Message and help where the expression is not a boolean that depends on the row alone.
    fn plan(&self, connector: &Connector, sql: &str) -> Result<(), (String, Option<String>)> {
        let refused = |error: &DataFusionError| (format!("the expression cannot work: {}", cleaned(error)), None);
        let fields: Vec<_> =
            connector.decoded_schema().fields().iter().filter(|f| f.name() != super::ROW_COLUMN).cloned().collect();
        let schema = DFSchema::try_from(Schema::new(fields)).map_err(|error| refused(&error))?;
        let expr = self.context.parse_sql_expr(sql, &schema).map_err(|error| refused(&error))?;
        depends_on_row_alone(&expr)?;
        let physical = self.context.create_physical_expr(expr.clone(), &schema).map_err(|error| refused(&error))?;
        let data_type = physical
            .data_type(schema.as_arrow())
            .or_else(|_| expr.get_type(&schema))
            .map_err(|error| refused(&error))?;
        if data_type != DataType::Boolean {
            let help = "compare it with something, as in `amount > 0` or `email IS NOT NULL`".to_owned();
            return Err((format!("the expression gives {}, not a boolean", spoken(&data_type)), Some(help)));
        }
        Ok(())
    }
}

pub(super) fn parse(sql: &str) -> Result<SqlExpr, (u64, u64, String)> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(sql).map_err(|error| located(&error))?;
    let parsed = parser.parse_expr().map_err(|error| located(&error))?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF {
        return Ok(parsed);
    }
    let message = format!("it should end before `{}`", rest.token);
    Err((rest.span.start.line, rest.span.start.column, message))
}

/// That it is one query, in this dialect; line, column and message where it is not.
pub(super) fn parse_query(sql: &str) -> Result<(), (u64, u64, String)> {
    let dialect = GenericDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(sql).map_err(|error| located(&error))?;
    parser.parse_query().map_err(|error| located(&error))?;
    let rest = parser.peek_token();
    if rest.token == Token::EOF {
        return Ok(());
    }
    Err((rest.span.start.line, rest.span.start.column, format!("it should end before `{}`", rest.token)))
}

/// Cuts ` at Line: 1, Column: 8` off a parser's message.
fn located(error: &ParserError) -> (u64, u64, String) {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text.as_str(),
        ParserError::RecursionLimitExceeded => "it is nested too deeply",
    };
    let text = text.replace("found: EOF", "found its end").replace("Expected: ", "expected ");
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        return (1, 1, text);
    };
    let (line, column) = place.split_once(", Column: ").unwrap_or((place, "1"));
    (line.trim().parse().unwrap_or(1), column.trim().parse().unwrap_or(1), message.to_owned())
}

fn known_columns(connector: &Connector) -> Vec<&str> {
    let own = connector.fields.iter().map(|field| field.name.as_str());
    own.chain(connector.rescues().then_some(RESCUED_COLUMN)).collect()
}

/// With what each was meant to be, in the order in which they stand.
fn unknown_names(parsed: &SqlExpr, columns: &[&str], functions: &[String]) -> Vec<(Ident, &'static str)> {
    let mut unknown = Vec::new();
    let _: ControlFlow<()> = visit_expressions(parsed, |expr| {
        match expr {
            SqlExpr::Function(call) => {
                let ident = call.name.0.last().and_then(ObjectNamePart::as_ident);
                if let Some(ident) = ident.filter(|ident| !functions.contains(&folded(ident))) {
                    unknown.push((ident.clone(), "function"));
                }
            }
            _ => {
                if let Some(ident) = column(expr).filter(|ident| !columns.contains(&folded(ident).as_str())) {
                    unknown.push((ident.clone(), "column"));
                }
            }
        }
        ControlFlow::Continue(())
    });
    unknown
}

/// `the columns: amount is decimal(12,2), …` of those that the expression names.
fn types_of(connector: &Connector, parsed: &SqlExpr) -> Option<String> {
    let mut types: Vec<String> = Vec::new();
    let _: ControlFlow<()> = visit_expressions(parsed, |expr| {
        if let Some(field) = column(expr).and_then(|ident| connector.field(&folded(ident))) {
            let spoken = format!("{} is {}", field.name, type_name(field.data_type));
            if !types.contains(&spoken) {
                types.push(spoken);
            }
        }
        ControlFlow::Continue(())
    });
    (!types.is_empty()).then(|| format!("the columns: {}", types.join(", ")))
}

fn column(expr: &SqlExpr) -> Option<&Ident> {
    match expr {
        SqlExpr::Identifier(ident) => Some(ident),
        SqlExpr::CompoundIdentifier(parts) => parts.first(),
        _ => None,
    }
}

/// As SQL has it: without quotes, case does not count.
pub(super) fn folded(ident: &Ident) -> String {
    if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_lowercase() }
}

fn depends_on_row_alone(expr: &Expr) -> Result<(), (String, Option<String>)> {
    let mut found = None;
    let walked = expr.apply(|part| {
        found = match part {
            Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
                let message = format!("`{}()` gives another value tomorrow", call.func.name());
                Some((message, Some("a replay must make the same rows: use columns and constants only".to_owned())))
            }
            Expr::AggregateFunction(call) => {
                let message = format!("`{}()` needs more than one row", call.func.name());
                Some((message, Some("an expectation looks at one row at a time".to_owned())))
            }
            Expr::WindowFunction(call) => {
                let message = format!("`{}()` needs more than one row", call.fun.name());
                Some((message, Some("an expectation looks at one row at a time".to_owned())))
            }
            Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) => {
                let help = "an expectation looks at one row at a time".to_owned();
                Some(("the expression holds a query of its own".to_owned(), Some(help)))
            }
            _ => None,
        };
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (walked, found) {
        (_, Some(problem)) => Err(problem),
        (Err(error), None) => Err((cleaned(&error), None)),
        (Ok(_), None) => Ok(()),
    }
}

/// The planner's first line without its own wrapping.
pub(super) fn cleaned(error: &DataFusionError) -> String {
    let mut text = error.strip_backtrace();
    while let Some((head, tail)) = text.split_once(": ")
        && (head.ends_with(" error") || head.ends_with(" planning") || head == "type_coercion")
    {
        text = tail.to_owned();
    }
    let text = text.lines().next().unwrap_or_default();
    text.trim_end_matches('.').to_owned()
}

fn spoken(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Timestamp(..) => "a timestamp".to_owned(),
        DataType::Null => "null".to_owned(),
        other if other.is_numeric() => "a number".to_owned(),
        other => format!("{other}"),
    }
}

/// Where line and column of the expression stand in the file: exact for plain and quoted scalars on
/// one line and for literal blocks (`|`), the start of the scalar otherwise.
pub(super) fn place_inside(node: &Node, line: u64, column: u64) -> Origin {
    let Origin::File { line: first_line, column: first_column } = node.origin else { return node.origin.clone() };
    let (line, column) = (line.max(1) as u32, column.max(1) as u32);
    let spelling = node.spelling.trim_end();
    match spelling.chars().next() {
        Some('"' | '\'') if spelling.contains('\n') => node.origin.clone(),
        Some(quote @ ('"' | '\'')) => {
            // An escape takes two characters for one.
            let mut written = 1;
            let mut characters = spelling.chars().skip(1);
            for _ in 1..column {
                let Some(character) = characters.next() else { break };
                written += 1;
                if (quote == '"' && character == '\\') || (quote == '\'' && character == '\'') {
                    characters.next();
                    written += 1;
                }
            }
            Origin::File { line: first_line, column: first_column + written }
        }
        // Folded lines: the expression has fewer of them than the file.
        _ if spelling.lines().count() != node.scalar_text().trim_end().lines().count() => node.origin.clone(),
        // The lines of a block are indented as its first one.
        _ => Origin::File { line: first_line + line - 1, column: first_column + column - 1 },
    }
}
