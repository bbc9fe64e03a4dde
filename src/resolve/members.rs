//! The members of a dimension as candidates are looked for among them.

use super::name::Name;
use super::normalize::{features, words};
use super::vectorize::IdfTable;

/// Members by place. Places are given in the order of the keys and never change; later members come behind.
#[derive(Debug, Clone, Default)]
pub struct Members {
    table: IdfTable,
    keys: Vec<i64>,
    names: Vec<Name>,
}

impl Members {
    /// Counts the features of all, then makes the vectors. `texts` by key, in the order in which they are given.
    pub fn new<'a>(texts: impl Iterator<Item = (i64, &'a str)> + Clone) -> Self {
        let mut table = IdfTable::default();
        texts.clone().for_each(|(_, text)| table.add(&features(&words(text))));
        Self::with_table(table, texts)
    }

    /// With the table of a snapshot.
    pub fn with_table<'a>(table: IdfTable, texts: impl Iterator<Item = (i64, &'a str)>) -> Self {
        let mut members = Self { table, keys: Vec::new(), names: Vec::new() };
        texts.for_each(|(key, text)| members.push(key, text));
        members
    }

    /// Adds a member that came after the table was made.
    pub fn push(&mut self, key: i64, text: &str) {
        self.names.push(Name::new(text, &self.table));
        self.keys.push(key);
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub fn table(&self) -> &IdfTable {
        &self.table
    }

    pub fn key(&self, place: u32) -> i64 {
        self.keys[place as usize]
    }

    pub fn name(&self, place: u32) -> &Name {
        &self.names[place as usize]
    }

    pub fn names(&self) -> &[Name] {
        &self.names
    }
}
