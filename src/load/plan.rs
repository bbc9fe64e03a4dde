//! How a connector's columns go into a warehouse table: decided and checked once, at start.
//!
//! A column that both have by name is loaded; one that the table lacks is not, and that is fine. A fact
//! gets `<member>_key` for each dimension link. What is loaded must fit without loss, so that no row
//! can fail later: the checks below refuse narrower types and columns that need a value nobody gives.

use std::collections::{BTreeMap, BTreeSet};

use super::error::LoadError;
use super::key_map;
use super::warehouse_table::{SCHEMA, WarehouseTable};
pub(super) use super::wire_type::{WireType, shown};
use super::wire_type::{needed_type, wire_type};
use crate::config::{Connector, FieldType, Warehouse, WarehouseTable as Target};
use crate::types::NameProposal;

/// Columns that every loaded table carries, in the order in which they are written.
pub(super) const LINEAGE_COLUMNS: [(&str, &str); 7] = [
    ("_source", "int8"),
    ("_offset", "int8"),
    ("_record", "int4"),
    ("_row", "int8"),
    ("_newer_at", "timestamptz"),
    ("_object_time", "timestamptz"),
    ("_object_hash", "int8"),
];

/// Identifiers beyond this are cut off by the server. Source: PostgreSQL 15, NAMEDATALEN − 1.
pub(super) const IDENTIFIER_BYTES_MAX: usize = 63;
/// What the name of a day's partition adds to the fact's: `_p20261123`.
const DAY_SUFFIX_BYTES: usize = 10;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlanColumn {
    pub name: String,
    pub field_type: FieldType,
    pub wire: WireType,
    /// False for a column that only names a member.
    pub loaded: bool,
}

/// From a fact's column to a member of a dimension.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Link {
    /// `dim_users`
    pub table: String,
    /// `user_key`, in both tables.
    pub member_key: String,
    /// `user_id`, in the dimension.
    pub natural_key: String,
    /// The connector's column with the natural key.
    pub column: Option<String>,
    /// Where a name tells the member that the natural key does not.
    pub by_name: Option<ByName>,
}

/// That the member is the one decided for a spelling.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ByName {
    /// `products`
    pub dimension: String,
    /// The rows' column with the spelling.
    pub column: String,
    /// The dimension's column with the name.
    pub against: String,
    /// The dimension's columns with identifiers.
    pub identifiers: Vec<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TableKind {
    Fact { time: String, links: Vec<Link> },
    Dimension,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct TablePlan {
    pub connector: String,
    pub table: String,
    pub kind: TableKind,
    /// Natural key, without a fact's time.
    pub key: Vec<String>,
    /// In the order of the temporary table; the lineage columns follow.
    pub columns: Vec<PlanColumn>,
    pub newer_by: Option<String>,
    /// A day's partition is sealed so long after its end.
    pub seal_after_hours: u32,
    /// Whether partitions begin with indexes on members' keys.
    pub index_hot: bool,
    /// Of a fact: the key alone names a row, whatever its time (`key_map`).
    pub time_changes: bool,
    /// Columns that rollups of the fact group by.
    pub grouped: BTreeSet<String>,
}

impl TablePlan {
    pub(super) fn new(
        connector: &Connector,
        warehouse: &Warehouse,
        tables: &BTreeMap<String, WarehouseTable>,
    ) -> Result<Self, LoadError> {
        Builder { connector, warehouse, tables }
            .build()
            .map_err(|problem| LoadError::Mismatch { connector: connector.name.clone(), problem })
    }

    /// What the table's unique key is: the natural key, and a fact's time.
    pub(super) fn identity(&self) -> Vec<&str> {
        self.key.iter().map(String::as_str).chain(self.time()).collect()
    }

    /// What names a row: its unique key, or without the time where that may change.
    fn names(&self) -> Vec<&str> {
        self.key.iter().map(String::as_str).chain(self.time().filter(|_| !self.time_changes)).collect()
    }

    /// Which of its columns the table takes, and how members are found: what the rows alone do not tell of the values that stand
    /// in it.
    pub(super) fn shape(&self) -> String {
        let columns: Vec<(&str, bool)> =
            self.columns.iter().map(|column| (column.name.as_str(), column.loaded)).collect();
        format!("{columns:?} {:?}", self.links())
    }

    /// A fact's event time.
    pub(super) fn time(&self) -> Option<&str> {
        match &self.kind {
            TableKind::Fact { time, .. } => Some(time),
            TableKind::Dimension => None,
        }
    }

    pub(super) fn is_fact(&self) -> bool {
        matches!(self.kind, TableKind::Fact { .. })
    }

    pub(super) fn links(&self) -> &[Link] {
        match &self.kind {
            TableKind::Fact { links, .. } => links,
            TableKind::Dimension => &[],
        }
    }

    pub(super) fn column(&self, name: &str) -> Option<&PlanColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

/// A table with its shadow, whatever connectors fill it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LoadTable {
    /// Without its schema.
    pub name: String,
    /// Its place in the loader's list: dimensions first, then by name.
    pub number: usize,
    pub is_fact: bool,
    /// What names a row.
    pub identity: Vec<String>,
    /// Of a fact: its time, where that may change for a key.
    pub changing_time: Option<String>,
    /// Types of the columns in `identity`.
    pub identity_types: Vec<&'static str>,
    /// All that a row consists of, identity and lineage included: the columns that table and shadow share.
    pub columns: Vec<String>,
}

impl LoadTable {
    pub(super) fn shadow(&self) -> String {
        shadow_of(&self.name)
    }

    /// Its times by key, where they may change.
    pub(super) fn key_map(&self) -> String {
        key_map::name_of(&self.name)
    }

    /// The table of a plan.
    pub(super) fn new(plan: &TablePlan, tables: &BTreeMap<String, WarehouseTable>) -> Result<Self, String> {
        let (name, shadow_name) = (&plan.table, shadow_of(&plan.table));
        let (Some(table), Some(shadow)) = (tables.get(name), tables.get(&shadow_name)) else {
            return Err(format!(
                "there is no table {SCHEMA}.{shadow_name} for the rows of {name} that lost: run `sluice migrate`, or create it"
            ));
        };
        let shared: Vec<&String> = shadow.columns.keys().filter(|column| table.columns.contains_key(*column)).collect();
        for column in &shared {
            expect_type(name, table, column, &shadow.columns[*column].type_name)?;
        }
        let needed = plan.columns.iter().filter(|column| column.loaded).map(|column| column.name.as_str());
        let needed = needed.chain(plan.links().iter().map(|link| link.member_key.as_str()));
        for column in needed.chain(LINEAGE_COLUMNS.iter().map(|(column, _)| *column)) {
            if !shadow.columns.contains_key(column) {
                return Err(format!("table {SCHEMA}.{shadow_name} lacks column `{column}`, which {name} has"));
            }
        }
        Ok(Self {
            name: name.clone(),
            number: 0,
            is_fact: plan.is_fact(),
            identity: plan.names().into_iter().map(str::to_owned).collect(),
            changing_time: plan.time().filter(|_| plan.time_changes).map(str::to_owned),
            identity_types: plan
                .names()
                .into_iter()
                .map(|name| plan.column(name).map_or("text", |column| column.wire.sql()))
                .collect(),
            columns: shared.into_iter().cloned().collect(),
        })
    }
}

/// `fact_events_shadow`
fn shadow_of(table: &str) -> String {
    format!("{table}_shadow")
}

/// Every table that a connector's rows touch.
pub(super) fn tables_of(warehouse: &Warehouse) -> Vec<String> {
    let target = match &warehouse.target {
        Target::Fact(name) | Target::Dimension(name) => name.clone(),
    };
    let shadow = shadow_of(&target);
    [target, shadow]
        .into_iter()
        .chain(warehouse.dimensions.iter().map(|link| dimension_table(&link.dimension)))
        .collect()
}

fn dimension_table(dimension: &str) -> String {
    format!("dim_{dimension}")
}

struct Builder<'a> {
    connector: &'a Connector,
    warehouse: &'a Warehouse,
    tables: &'a BTreeMap<String, WarehouseTable>,
}

impl Builder<'_> {
    fn build(&self) -> Result<TablePlan, String> {
        let (name, is_fact) = match &self.warehouse.target {
            Target::Fact(name) => (name, true),
            Target::Dimension(name) => (name, false),
        };
        let table = self.table(name)?;
        let time = &self.connector.staging.time;
        let kind = if is_fact {
            if name.len() > IDENTIFIER_BYTES_MAX - DAY_SUFFIX_BYTES {
                return Err(format!("the name of table {SCHEMA}.{name} is too long for its partitions"));
            }
            if table.range_column.as_ref() != Some(time) {
                return Err(format!("table {SCHEMA}.{name} must be PARTITION BY RANGE ({time})"));
            }
            TableKind::Fact { time: time.clone(), links: self.links(name, table)? }
        } else {
            TableKind::Dimension
        };
        check_lineage(name, table)?;
        let columns = self.columns(name, table, &kind)?;
        let plan = TablePlan {
            connector: self.connector.name.clone(),
            table: name.clone(),
            kind,
            key: self.warehouse.key.clone(),
            columns,
            newer_by: self.warehouse.newer_by.clone(),
            seal_after_hours: self.warehouse.seal_after_hours,
            index_hot: self.warehouse.index_hot,
            time_changes: self.warehouse.time_changes,
            grouped: BTreeSet::new(),
        };
        check_identity(&plan, table)?;
        self.check_required(&plan, table)?;
        Ok(plan)
    }

    fn table(&self, name: &str) -> Result<&WarehouseTable, String> {
        self.tables.get(name).ok_or_else(|| {
            format!("there is no table {SCHEMA}.{name}, or this user may not use it: run `sluice migrate`")
        })
    }

    fn links(&self, fact: &str, table: &WarehouseTable) -> Result<Vec<Link>, String> {
        let mut links = Vec::new();
        for link in &self.warehouse.dimensions {
            let singular = link.dimension.strip_suffix('s').unwrap_or(&link.dimension);
            let link = Link {
                table: dimension_table(&link.dimension),
                member_key: format!("{singular}_key"),
                natural_key: format!("{singular}_id"),
                column: link.key.clone(),
                by_name: link.resolve.as_ref().map(|name| ByName {
                    dimension: link.dimension.clone(),
                    column: NameProposal::column(&link.dimension),
                    against: name.against.clone(),
                    identifiers: name.identifiers.clone(),
                }),
            };
            let dimension = self.table(&link.table)?;
            expect_type(fact, table, &link.member_key, "int8")?;
            expect_type(&link.table, dimension, &link.member_key, "int8")?;
            expect_type(&link.table, dimension, &link.natural_key, "text")?;
            expect_type(&link.table, dimension, "inferred", "bool")?;
            check_unique(&link.table, dimension, &BTreeSet::from([link.natural_key.as_str()]))?;
            let needed = dimension
                .columns
                .iter()
                .find(|(name, column)| !column.nullable && !column.has_default && **name != link.natural_key);
            if let Some((name, _)) = needed {
                return Err(format!(
                    "{SCHEMA}.{}.{name} is NOT NULL, so that no inferred member can be made",
                    link.table
                ));
            }
            if let Some(by_name) = &link.by_name {
                expect_type(&link.table, dimension, &by_name.against, "text")?;
                expect_type(&link.table, dimension, "merged_into", "int8")?;
                let mut identifiers = by_name.identifiers.iter();
                identifiers.try_for_each(|column| expect_type(&link.table, dimension, column, "text"))?;
            }
            if let Some(column) = &link.column {
                let field = self.connector.field(column);
                if !matches!(field.map(|field| field.data_type), Some(FieldType::Utf8 | FieldType::Uuid)) {
                    let table = &link.table;
                    return Err(format!("column `{column}` names members of {table}, so it must be utf8 or uuid"));
                }
            }
            links.push(link);
        }
        Ok(links)
    }

    fn columns(&self, name: &str, table: &WarehouseTable, kind: &TableKind) -> Result<Vec<PlanColumn>, String> {
        let mut columns = Vec::new();
        for field in &self.connector.fields {
            let is_link = matches!(kind, TableKind::Fact { links, .. } if links.iter().any(|l| l.column.as_ref() == Some(&field.name)));
            let in_key = is_link || self.warehouse.key.contains(&field.name);
            let found = table.columns.get(&field.name);
            let wire = match found {
                Some(column) => wire_type(field.data_type, column, in_key).ok_or_else(|| {
                    let needed = needed_type(field.data_type);
                    format!("column `{}` is {needed}, but {SCHEMA}.{name}.{0} is {1}", field.name, shown(column))
                })?,
                None if is_link => WireType::KeyText,
                None => continue,
            };
            columns.push(PlanColumn {
                name: field.name.clone(),
                field_type: field.data_type,
                wire,
                loaded: found.is_some(),
            });
        }
        if let TableKind::Fact { links, .. } = kind {
            columns.extend(links.iter().filter_map(|link| link.by_name.as_ref()).map(|by_name| PlanColumn {
                name: by_name.column.clone(),
                field_type: FieldType::Utf8,
                wire: WireType::KeyText,
                loaded: false,
            }));
        }
        Ok(columns)
    }

    /// A column of the table that must not be null is given by a required column, a link or a default.
    fn check_required(&self, plan: &TablePlan, table: &WarehouseTable) -> Result<(), String> {
        let stuck = plan.columns.iter().find(|column| {
            let is_emptied = column.loaded && !plan.identity().contains(&column.name.as_str());
            is_emptied && table.columns.get(&column.name).is_some_and(|found| !found.nullable)
        });
        if let (TableKind::Dimension, Some(column)) = (&plan.kind, stuck) {
            return Err(format!(
                "{SCHEMA}.{}.{} is NOT NULL, so that a member whose row a replay takes away could not stay as an inferred one",
                plan.table, column.name
            ));
        }
        for (name, column) in table.columns.iter().filter(|(_, column)| !column.nullable && !column.has_default) {
            let given = LINEAGE_COLUMNS.iter().any(|(lineage, _)| lineage == name)
                || plan.links().iter().any(|link| link.member_key == *name)
                || self.connector.field(name).is_some_and(|field| field.required);
            if !given {
                return Err(format!(
                    "{SCHEMA}.{}.{name} is {} NOT NULL: add a required column `{name}` to the connector",
                    plan.table,
                    shown(column)
                ));
            }
        }
        Ok(())
    }
}

fn check_lineage(name: &str, table: &WarehouseTable) -> Result<(), String> {
    LINEAGE_COLUMNS.iter().try_for_each(|(column, type_name)| expect_type(name, table, column, type_name))
}

fn check_identity(plan: &TablePlan, table: &WarehouseTable) -> Result<(), String> {
    for column in plan.identity() {
        if !plan.column(column).is_some_and(|column| column.loaded) {
            return Err(format!("table {SCHEMA}.{} lacks column `{column}`, which names its rows", plan.table));
        }
    }
    if plan.kind == TableKind::Dimension {
        expect_type(&plan.table, table, "inferred", "bool")?;
    }
    check_unique(&plan.table, table, &plan.identity().into_iter().collect())
}

fn check_unique(name: &str, table: &WarehouseTable, columns: &BTreeSet<&str>) -> Result<(), String> {
    let is_same = |key: &BTreeSet<String>| key.iter().map(String::as_str).eq(columns.iter().copied());
    if table.unique_keys.iter().any(is_same) {
        return Ok(());
    }
    let columns = columns.iter().copied().collect::<Vec<_>>().join(", ");
    Err(format!("table {SCHEMA}.{name} needs a unique key on ({columns})"))
}

pub(super) fn expect_type(name: &str, table: &WarehouseTable, column: &str, type_name: &str) -> Result<(), String> {
    match table.columns.get(column) {
        Some(found) if found.type_name == type_name => Ok(()),
        Some(found) => Err(format!("{SCHEMA}.{name}.{column} must be {type_name}, not {}", shown(found))),
        None => Err(format!("table {SCHEMA}.{name} lacks column `{column}` ({type_name})")),
    }
}
