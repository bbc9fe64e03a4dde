//! The open micro-batch of one topic partition: what it holds and when it is to be cut.

use std::time::Duration;

use tokio::time::Instant;

use super::process::ProcessedMessage;
use super::replay::Bound;
use crate::commit::{BatchLimits, Fill};
use crate::types::MicroBatchId;

pub(super) struct OpenBatch {
    pub(super) first: i64,
    /// The micro-batch before it; nil where this ownership has committed none yet.
    pub(super) after: uuid::Uuid,
    pub(super) messages: Vec<ProcessedMessage>,
    fill: Fill,
    since: Option<Instant>,
    bound: Option<Bound>,
    is_closed: bool,
    /// What it holds, or what comes next, is to be a micro-batch of its own.
    is_ended: bool,
}

impl OpenBatch {
    pub(super) fn at(first: i64, after: uuid::Uuid, bound: Option<Bound>) -> Self {
        Self {
            first,
            after,
            messages: Vec::new(),
            fill: Fill::default(),
            since: None,
            bound,
            is_closed: false,
            is_ended: false,
        }
    }

    /// The first offset it does not cover.
    pub(super) fn next(&self) -> i64 {
        self.messages
            .last()
            .map_or(self.first, |last| last.message.offset + 1)
            .max(self.first + self.fill.offsets as i64)
    }

    /// Takes a message, or gives it back where it lies behind the bound: then this micro-batch is complete. One whose rows
    /// are staged already is to be alone, unless a replay wants it together with others.
    pub(super) fn push(&mut self, processed: ProcessedMessage) -> Option<ProcessedMessage> {
        if let Some(bound) = self.bound
            && processed.message.offset >= bound.end
        {
            self.extend_to(bound.end);
            return Some(processed);
        }
        let is_alone = processed.staged().next().is_some() && self.replaces().is_none();
        if is_alone && !self.messages.is_empty() {
            self.is_ended = true;
            return Some(processed);
        }
        self.is_ended = is_alone;
        self.fill.offsets = (processed.message.offset + 1 - self.first).unsigned_abs();
        for rows in processed.rows() {
            self.fill.rows += rows.row_count;
            self.fill.bytes += rows.unpacked_bytes;
        }
        self.since.get_or_insert_with(Instant::now);
        self.messages.push(processed);
        None
    }

    /// Covers offsets that the log has no messages for, up to `end` or the bound.
    pub(super) fn extend_to(&mut self, end: i64) {
        let end = self.bound.map_or(end, |bound| end.min(bound.end));
        self.fill.offsets = (end - self.first).unsigned_abs();
    }

    /// Nothing more comes soon: it is due, if it may be cut.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// The micro-batch that it replaces.
    pub(super) fn replaces(&self) -> Option<MicroBatchId> {
        self.bound.and_then(|bound| bound.replaces)
    }

    /// Whether a replay is under way.
    pub(super) fn is_bound(&self) -> bool {
        self.bound.is_some()
    }

    fn is_complete(&self) -> bool {
        self.bound.is_some_and(|bound| self.next() >= bound.end)
    }

    /// Whether it may not be cut yet, however full or old it is.
    pub(super) fn must_grow(&self) -> bool {
        self.replaces().is_some() && !self.is_complete()
    }

    /// Whether closing it makes it due. Where a message waits for memory and none is being processed, only a commit gives
    /// back what this holds: its age is not waited for.
    pub(super) fn may_close(&self) -> bool {
        !self.is_closed && !self.messages.is_empty() && !self.must_grow()
    }

    /// Whether nothing more may be added.
    pub(super) fn is_full(&self, limits: &BatchLimits) -> bool {
        self.is_ended || self.is_complete() || (!self.must_grow() && limits.reached(self.fill))
    }

    /// When it is to be cut. `None`: not before there is more.
    pub(super) fn due(&self, limits: &BatchLimits, age_max: Duration) -> Option<Instant> {
        if self.is_full(limits) || (self.is_closed && !self.must_grow()) {
            return Some(Instant::now());
        }
        if self.must_grow() { None } else { self.since.map(|since| since + age_max) }
    }
}
