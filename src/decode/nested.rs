//! Columns whose values stand inside a field of the record, by their paths.
//!
//! # Contract
//! A path that leads nowhere, because something on it is absent or null, is null. Where something else stands than the
//! object or array that a path goes through, that is a value of the wrong type, for `evolution.type_change` to decide.
//! What no path leads to follows `evolution.new_field`, named by its own path; `evolve` keeps it as `rescue` does.
//! A name that stands twice in an object refuses the row, where a path or `evolution.new_field` looks at it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::column::plain;
use super::json::{RowDecoder, RowFault, shortened};
use super::scan::{Scanner, SyntaxError};
use crate::config::{Connector, NewField, PathStep, TypeChange};

/// A place that paths lead to or through.
pub(super) struct Place {
    /// Its path.
    path: String,
    /// The column of the whole value.
    column: Option<usize>,
    inside: Inside,
}

enum Inside {
    Nothing,
    Object { by_name: HashMap<Box<[u8]>, usize>, places: Vec<Place> },
    Array(BTreeMap<usize, Place>),
}

impl Place {
    /// The place of a record's field, with everything inside. `None`: the field is a column and no more.
    pub(super) fn of_field(connector: &Connector, name: &str) -> Option<Arc<Self>> {
        let path = format!("${}", PathStep::Name(name.to_owned()));
        let mut place = Self { path, column: None, inside: Inside::Nothing };
        for (index, field) in connector.fields.iter().enumerate().filter(|(_, field)| field.first_name() == name) {
            let steps = field.path.as_ref().map_or(&[][..], |path| path.rest());
            place.add(steps, index);
        }
        (!matches!(place.inside, Inside::Nothing)).then(|| Arc::new(place))
    }

    /// `validate` has seen to it that no place is both an object and an array.
    fn add(&mut self, steps: &[PathStep], column: usize) {
        let Some((step, rest)) = steps.split_first() else {
            self.column = Some(column);
            return;
        };
        let path = format!("{}{step}", self.path);
        let new = || Self { path, column: None, inside: Inside::Nothing };
        match step {
            PathStep::Name(name) => {
                if !matches!(self.inside, Inside::Object { .. }) {
                    self.inside = Inside::Object { by_name: HashMap::new(), places: Vec::new() };
                }
                let Inside::Object { by_name, places } = &mut self.inside else { return };
                let index = *by_name.entry(Box::from(name.as_bytes())).or_insert(places.len());
                if index == places.len() {
                    places.push(new());
                }
                places[index].add(rest, column);
            }
            PathStep::Index(index) => {
                if !matches!(self.inside, Inside::Array(_)) {
                    self.inside = Inside::Array(BTreeMap::new());
                }
                let Inside::Array(places) = &mut self.inside else { return };
                places.entry(*index).or_insert_with(new).add(rest, column);
            }
        }
    }
}

impl RowDecoder {
    /// Takes a value that stands at a place; it is sound JSON.
    pub(super) fn value_inside(&mut self, place: &Place, value: &[u8]) -> Result<Option<RowFault>, SyntaxError> {
        if let Some(column) = place.column {
            let mut scanner = Scanner::new(value, Vec::new(), usize::MAX);
            if let Some(misfit) = self.batch.columns[column].read(&mut scanner, &mut self.scratch)?
                && let Some(fault) = self.misfit(column, misfit, value)
            {
                return Ok(Some(fault));
            }
        }
        match (&place.inside, value.first()) {
            (Inside::Nothing, _) | (_, Some(b'n')) => Ok(None),
            (Inside::Object { by_name, places }, Some(b'{')) => self.object_inside(&place.path, by_name, places, value),
            (Inside::Array(places), Some(b'[')) => self.array_inside(&place.path, places, value),
            (inside, _) => Ok(self.other_than(inside, &place.path, value)),
        }
    }

    fn object_inside(
        &mut self,
        path: &str,
        by_name: &HashMap<Box<[u8]>, usize>,
        places: &[Place],
        value: &[u8],
    ) -> Result<Option<RowFault>, SyntaxError> {
        let mut scanner = Scanner::new(value, Vec::new(), usize::MAX);
        let mut is_seen = vec![false; places.len()];
        let mut has_next = scanner.begin_object()?;
        while has_next {
            let key = scanner.key()?;
            let inner = scanner.value()?;
            let name = plain(key, &mut self.scratch);
            let fault = match by_name.get(name) {
                Some(index) if std::mem::replace(&mut is_seen[*index], true) => {
                    Some(RowFault::Duplicate { field: places[*index].path.clone() })
                }
                Some(index) => self.value_inside(&places[*index], inner)?,
                None => {
                    let step = PathStep::Name(String::from_utf8_lossy(name).into_owned());
                    self.unknown_inside(path, &step, inner)
                }
            };
            if fault.is_some() {
                return Ok(fault);
            }
            has_next = scanner.next_field()?;
        }
        Ok(None)
    }

    fn array_inside(
        &mut self,
        path: &str,
        places: &BTreeMap<usize, Place>,
        value: &[u8],
    ) -> Result<Option<RowFault>, SyntaxError> {
        let mut scanner = Scanner::new(value, Vec::new(), usize::MAX);
        let mut has_next = scanner.begin_array()?;
        for index in 0.. {
            if !has_next {
                break;
            }
            let inner = scanner.value()?;
            let fault = match places.get(&index) {
                Some(place) => self.value_inside(place, inner)?,
                None => self.unknown_inside(path, &PathStep::Index(index), inner),
            };
            if fault.is_some() {
                return Ok(fault);
            }
            has_next = scanner.next_element()?;
        }
        Ok(None)
    }

    fn unknown_inside(&mut self, path: &str, step: &PathStep, value: &[u8]) -> Option<RowFault> {
        let policy = self.connector.evolution.new_field;
        if policy == NewField::Ignore {
            return None;
        }
        let path = format!("{path}{step}");
        if policy == NewField::Reject {
            return Some(RowFault::Unknown { field: shortened(path.as_bytes()) });
        }
        self.rescue(&path, value)
    }

    /// Keeps a value under its path.
    fn rescue(&mut self, path: &str, value: &[u8]) -> Option<RowFault> {
        if !self.unknown.insert(path.as_bytes()) {
            return Some(RowFault::Duplicate { field: shortened(path.as_bytes()) });
        }
        let name = serde_json::Value::from(path).to_string();
        self.unknown.keep(&name.as_bytes()[1..name.len() - 1], value);
        None
    }

    fn other_than(&mut self, wanted: &Inside, path: &str, value: &[u8]) -> Option<RowFault> {
        match self.connector.evolution.type_change {
            TypeChange::Ignore => None,
            TypeChange::Rescue => self.rescue(path, value),
            TypeChange::Reject | TypeChange::Evolve => {
                let expected = if matches!(wanted, Inside::Array(_)) { "an array" } else { "an object" };
                Some(RowFault::NothingInside { field: shortened(path.as_bytes()), expected })
            }
        }
    }
}
