//! The SQL of a connector's `transform`: planned, held against the rules, its columns known.
//!
//! # Rules
//! - One query over the table `input`: the cleaned rows, `_rescued` among their columns where the connector rescues.
//!   It may join other tables ([`super::JoinTable`]), and ask anything of them.
//! - What depends on the clock or on chance is refused: a replay must make the same rows.
//! - It makes at most one row of each row, so that each keeps its lineage: projections, filters, joins with
//!   tables and constants, of which a row of the input finds one row at most. That is seen when it is run.
//!   Groups, DISTINCT, LIMIT, windows, UNION and a second look at the input are refused.
//!
//! # Lineage
//! The plan that is run carries one column more, [`PLACE_COLUMN`], through every projection: which row of the input a row
//! was made of.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, SchemaError};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Projection, TableSource, Volatility};
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::executor::block_on;

use super::error::did_you_mean;
use super::expression::{cleaned, parse_query};
use super::{Connector, Field, FieldType, JoinTable, RESCUED_COLUMN, ROW_COLUMN, arrow_type};

/// What SQL calls the connector's rows.
const INPUT_TABLE: &str = "input";
/// Int64, not null: the place of a row among those of the call, from 0. No name that SQL could give a column.
pub const PLACE_COLUMN: &str = "__sluice_place";
/// Arrow metadata of input columns that are text to Arrow and more to Sluice. A column handed on as it is keeps it.
const TYPE_METADATA: &str = "sluice.type";

/// Rows of a joined table that are handed on at once.
const TABLE_STEP_ROWS: usize = 8192;

/// The rows of one run, given as an extension of its session.
#[derive(Debug)]
pub struct RunRows {
    /// [`QueryPlan::input_schema`]
    pub input: RecordBatch,
    /// By name; each of the schema of its table.
    pub tables: Arc<HashMap<String, RecordBatch>>,
}

/// SQL ready to run, any number of times.
#[derive(Debug, Clone)]
pub struct QueryPlan {
    pub physical: Arc<dyn ExecutionPlan>,
    /// What it is run by; [`RunRows`] are to be added.
    pub config: SessionConfig,
    /// Of [`PLACE_COLUMN`] and the rows it reads.
    pub input_schema: SchemaRef,
}

/// Why SQL is refused; line and column count from 1 within it.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct QueryError {
    pub(super) line: u64,
    pub(super) column: u64,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl QueryError {
    fn whole(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { line: 1, column: 1, message: message.into(), help: Some(help.into()) }
    }

    fn planning(error: &DataFusionError, columns: &SchemaRef, tables: &[Arc<JoinTable>]) -> Self {
        let start = error.diagnostic().and_then(|diagnostic| diagnostic.span).map(|span| span.start);
        let (line, column) = start.map_or((1, 1), |start| (start.line, start.column));
        let own = || columns.fields().iter().map(|field| field.name().as_str());
        let of_tables = tables.iter().flat_map(|table| &table.columns).map(|column| column.name.as_str());
        let root = error.find_root();
        let unknown = match root {
            DataFusionError::SchemaError(problem, _) => match &**problem {
                SchemaError::FieldNotFound { field, .. } => Some(field.name.as_str()),
                _ => None,
            },
            _ => None,
        };
        let (message, help) = if let Some(name) = unknown {
            (format!("there is no column `{name}`"), did_you_mean(name, "columns", own().chain(of_tables)))
        } else if let Some(name) = unknown_table(root) {
            let known = [INPUT_TABLE].into_iter().chain(tables.iter().map(|table| table.name.as_str()));
            (format!("there is no table `{name}`"), did_you_mean(&name, "tables", known))
        } else {
            let message = format!("the SQL cannot work: {}", cleaned(root));
            let mut help = format!("table `{INPUT_TABLE}` has the columns {}", own().collect::<Vec<_>>().join(", "));
            for table in tables {
                let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
                help.push_str(&format!("; `{}` has {}", table.name, columns.join(", ")));
            }
            (message, help)
        };
        Self { line, column, message, help: Some(help) }
    }
}

/// The one that the SQL names and nobody knows. DataFusion has no error of its own for it.
fn unknown_table(error: &DataFusionError) -> Option<String> {
    let DataFusionError::Plan(message) = error else { return None };
    let name = message.strip_prefix("table '")?.strip_suffix("' not found")?;
    Some(name.rsplit('.').next().unwrap_or(name).to_owned())
}

/// Rows that WHERE leaves out must not fail: one rule moves what is computed of rows below their filter.
fn planner(config: &SessionConfig) -> SessionContext {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.retain(|rule| rule.name() != "ProjectionPushdown");
    let state = SessionStateBuilder::new().with_config(config.clone()).with_default_features();
    SessionContext::new_with_state(state.with_physical_optimizer_rules(rules).build())
}

/// The connector's rows as SQL sees them.
fn table_schema(connector: &Connector) -> SchemaRef {
    let decoded = connector.decoded_schema();
    let columns = decoded.fields().iter().filter(|field| field.name() != ROW_COLUMN);
    let columns =
        columns.map(|field| connector.field(field.name()).map_or_else(|| ArrowField::clone(field), column_of));
    Arc::new(Schema::new(columns.collect::<Vec<_>>()))
}

/// A column as SQL sees it.
pub(super) fn column_of(field: &Field) -> ArrowField {
    let column = ArrowField::new(&field.name, arrow_type(field.data_type), !field.required);
    let special = match field.data_type {
        FieldType::Uuid => "uuid",
        FieldType::Json => "json",
        _ => return column,
    };
    column.with_metadata([(TYPE_METADATA.to_owned(), special.to_owned())].into())
}

/// Plans SQL over the connector's rows and the tables. CPU work, waits for nothing.
pub fn plan_query(connector: &Connector, sql: &str, tables: &[Arc<JoinTable>]) -> Result<QueryPlan, QueryError> {
    let columns = table_schema(connector);
    let help = "one query over table `input`, such as `SELECT id, upper(country) AS country FROM input`";
    parse_query(sql).map_err(|(line, column, message)| QueryError {
        line,
        column,
        message: format!("this is no SQL: {message}"),
        help: Some(help.to_owned()),
    })?;
    let failed = |error: DataFusionError| QueryError::planning(&error, &columns, tables);
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.collect_spans = true;
    let session = planner(&config);
    session.register_table(INPUT_TABLE, Arc::new(streamed(INPUT_TABLE, &columns).map_err(failed)?)).map_err(failed)?;
    for table in tables {
        let rows = Arc::new(streamed(&table.name, &table.schema()).map_err(failed)?);
        session.register_table(table.name.as_str(), rows).map_err(failed)?;
    }
    let state = session.state();
    // all tables are in memory: nothing is waited for
    let plan = block_on(state.create_logical_plan(sql)).map_err(failed)?;
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    options.verify_plan(&plan).map_err(failed)?;
    if let Some(function) = volatile_function(&plan) {
        let help = "a replay must make the same rows: use columns and constants only";
        return Err(QueryError::whole(format!("`{function}()` gives another value tomorrow"), help));
    }
    if !reads_input(&plan) {
        return Err(QueryError::whole("the SQL does not read table `input`", help));
    }
    if let Some(what) = breaks_lineage(&plan) {
        let help = "each row must be made of one row of `input`, or dead letters and replays could not name it";
        return Err(QueryError::whole(format!("the SQL holds {what}"), help));
    }
    let mut fields = columns.fields().to_vec();
    fields.push(Arc::new(ArrowField::new(PLACE_COLUMN, DataType::Int64, false)));
    let input_schema: SchemaRef = Arc::new(Schema::new(fields));
    let source = provider_as_source(Arc::new(streamed(INPUT_TABLE, &input_schema).map_err(failed)?));
    let placed = with_place(&plan, &source).map_err(failed)?;
    let physical = block_on(state.create_physical_plan(&placed)).map_err(failed)?;
    Ok(QueryPlan { physical, config, input_schema })
}

/// What a plan makes rows of.
pub(super) struct Output {
    pub(super) fields: Vec<Field>,
    /// Whether `_rescued` is handed on behind them.
    pub(super) rescues: bool,
}

/// The columns of the rows that a plan makes. A column in `not_null` is required: rows without it are dead letters.
pub(super) fn output_of(connector: &Connector, plan: &QueryPlan, not_null: &[&str]) -> Result<Output, QueryError> {
    let schema = plan.physical.schema();
    let is_rescued = |field: &ArrowField| connector.rescues() && field.name() == RESCUED_COLUMN;
    let rescued = schema.fields().iter().find(|field| is_rescued(field));
    if rescued.is_some_and(|field| field_type(field) != Some(FieldType::Utf8)) {
        let help = "hand it on as it is, or give what you make of it another name";
        return Err(QueryError::whole(format!("the SQL makes something else of `{RESCUED_COLUMN}`"), help));
    }
    let own = schema.fields().iter().filter(|field| field.name() != PLACE_COLUMN && !is_rescued(field));
    let made = own.map(|field| {
        let name = field.name();
        let data_type = field_type(field).ok_or_else(|| {
            let help = "cast it to text, a number, a decimal, a boolean or a timestamp, or leave it out";
            QueryError::whole(
                format!("column `{name}` of the SQL is {}, which no column holds", field.data_type()),
                help,
            )
        })?;
        let required = !field.is_nullable() || not_null.contains(&name.as_str());
        Ok(Field { name: name.clone(), data_type, required, formats: Vec::new(), header: None, path: None })
    });
    Ok(Output { fields: made.collect::<Result<_, _>>()?, rescues: rescued.is_some() })
}

pub(super) fn field_type(field: &ArrowField) -> Option<FieldType> {
    match field.metadata().get(TYPE_METADATA).map(String::as_str) {
        Some("uuid") => return Some(FieldType::Uuid),
        Some("json") => return Some(FieldType::Json),
        _ => {}
    }
    Some(match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => FieldType::Utf8,
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => FieldType::Int32,
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => FieldType::Int64,
        DataType::Float32 | DataType::Float64 => FieldType::Float64,
        DataType::Boolean => FieldType::Boolean,
        DataType::Decimal128(precision, scale) if *scale >= 0 => {
            FieldType::Decimal { precision: *precision, scale: *scale }
        }
        DataType::Timestamp(..) => FieldType::TimestampMs,
        _ => return None,
    })
}

/// A table that reads its rows of the run.
#[derive(Debug)]
struct TableStream {
    name: String,
    schema: SchemaRef,
}

impl PartitionStream for TableStream {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = context.session_config().get_extension::<RunRows>();
        let batches = match rows {
            Some(rows) if self.name == INPUT_TABLE => vec![rows.input.clone()],
            Some(rows) => rows.tables.get(&self.name).map(in_steps).unwrap_or_default(),
            None => Vec::new(),
        };
        let stream = futures::stream::iter(batches.into_iter().map(Ok));
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream))
    }
}

fn in_steps(rows: &RecordBatch) -> Vec<RecordBatch> {
    let count = rows.num_rows();
    (0..count).step_by(TABLE_STEP_ROWS).map(|from| rows.slice(from, TABLE_STEP_ROWS.min(count - from))).collect()
}

fn streamed(name: &str, schema: &SchemaRef) -> Result<StreamingTable, DataFusionError> {
    let stream = TableStream { name: name.to_owned(), schema: Arc::clone(schema) };
    StreamingTable::try_new(Arc::clone(schema), vec![Arc::new(stream)])
}

/// The same plan with [`PLACE_COLUMN`] among its columns. For plans that keep lineage.
fn with_place(plan: &LogicalPlan, source: &Arc<dyn TableSource>) -> Result<LogicalPlan, DataFusionError> {
    match plan {
        LogicalPlan::TableScan(scan) if scan.table_name.table() == INPUT_TABLE => {
            LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(source), None)?.build()
        }
        // of joined tables alone: whatever it asks, and in whatever order, has no place among the rows
        _ if !reads_input(plan) => Ok(plan.clone()),
        // rows get the order of the input back: sorting them is of no use
        LogicalPlan::Sort(node) if node.fetch.is_none() => with_place(&node.input, source),
        LogicalPlan::Projection(node) => {
            let input = with_place(&node.input, source)?;
            let mut exprs = node.expr.clone();
            exprs.extend(place_column(input.schema()).map(Expr::Column));
            Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(input))?))
        }
        _ if plan.inputs().is_empty() => Ok(plan.clone()),
        _ => {
            let inputs = plan.inputs().into_iter().map(|input| with_place(input, source));
            plan.with_new_exprs(plan.expressions(), inputs.collect::<Result<_, _>>()?)
        }
    }
}

fn place_column(schema: &DFSchema) -> Option<Column> {
    schema.columns().into_iter().find(|column| column.name == PLACE_COLUMN)
}

/// Whether the plan reads the connector's rows, its subqueries included.
fn reads_input(plan: &LogicalPlan) -> bool {
    let mut found = false;
    let walked = plan.apply_with_subqueries(|node| {
        found |= matches!(node, LogicalPlan::TableScan(scan) if scan.table_name.table() == INPUT_TABLE);
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    found || walked.is_err()
}

/// A function that may give another value tomorrow.
fn volatile_function(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                {
                    found = Some(call.func.name().to_owned());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found.or_else(|| walked.err().map(|_| "a function".to_owned()))
}

/// Why the rows of a plan cannot keep the lineage of the rows they are made of.
fn breaks_lineage(plan: &LogicalPlan) -> Option<&'static str> {
    let mut looks_again = false;
    let walked = plan.apply_subqueries(|subquery| {
        looks_again |= reads_input(subquery);
        Ok(TreeNodeRecursion::Continue)
    });
    if looks_again || walked.is_err() {
        return Some("a subquery that reads `input` again");
    }
    match plan {
        LogicalPlan::TableScan(_) => None,
        LogicalPlan::Projection(node) => breaks_lineage(&node.input),
        LogicalPlan::Filter(node) => breaks_lineage(&node.input),
        LogicalPlan::SubqueryAlias(node) => breaks_lineage(&node.input),
        LogicalPlan::Sort(node) if node.fetch.is_none() => breaks_lineage(&node.input),
        LogicalPlan::Join(node) => match (reads_input(&node.left), reads_input(&node.right)) {
            (true, false)
                if matches!(
                    node.join_type,
                    JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti
                ) =>
            {
                breaks_lineage(&node.left)
            }
            (false, true)
                if matches!(
                    node.join_type,
                    JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti
                ) =>
            {
                breaks_lineage(&node.right)
            }
            (true, true) => Some("a join of `input` with itself"),
            _ => Some("a join that makes rows without a row of `input`"),
        },
        LogicalPlan::Aggregate(_) => Some("GROUP BY or an aggregate function"),
        LogicalPlan::Distinct(_) => Some("DISTINCT"),
        LogicalPlan::Limit(_) | LogicalPlan::Sort(_) => Some("LIMIT"),
        LogicalPlan::Window(_) => Some("a window function"),
        LogicalPlan::Unnest(_) => Some("UNNEST"),
        LogicalPlan::Union(_) => Some("UNION"),
        _ => Some("something that does not keep one row for each row"),
    }
}
