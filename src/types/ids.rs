use std::fmt;

use uuid::Uuid;

/// Names one attempt at a micro-batch. Time-ordered (UUID version 7), so that files of one batch lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MicroBatchId(pub Uuid);

/// Who may commit for a topic partition: random (UUID version 4), installed by every assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fence(pub Uuid);

impl MicroBatchId {
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Fence {
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for MicroBatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
