//! When an open micro-batch is cut.

use std::time::Duration;

use crate::config::Limits;

/// How full an open micro-batch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fill {
    pub offsets: u64,
    pub rows: u64,
    /// Unpacked.
    pub bytes: u64,
}

/// The limits whose first one reached cuts a micro-batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    pub offsets_max: u64,
    pub rows_max: u64,
    pub bytes_max: u64,
    pub age_max: Duration,
}

impl BatchLimits {
    pub fn new(limits: &Limits) -> Self {
        Self {
            offsets_max: limits.micro_batch_offsets_max,
            rows_max: limits.micro_batch_rows_max,
            bytes_max: limits.micro_batch_bytes_max,
            age_max: limits.micro_batch_age_max,
        }
    }

    /// Whether nothing more may be added. Age is the caller's clock.
    pub fn reached(&self, fill: Fill) -> bool {
        fill.offsets >= self.offsets_max || fill.rows >= self.rows_max || fill.bytes >= self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_one_limit_cuts() {
        let limits = BatchLimits { offsets_max: 10, rows_max: 100, bytes_max: 1000, age_max: Duration::from_secs(1) };
        assert!(!limits.reached(Fill { offsets: 9, rows: 99, bytes: 999 }));
        assert!(limits.reached(Fill { offsets: 10, rows: 0, bytes: 0 }));
        assert!(limits.reached(Fill { offsets: 0, rows: 100, bytes: 0 }));
        assert!(limits.reached(Fill { offsets: 0, rows: 0, bytes: 1000 }));
    }
}
