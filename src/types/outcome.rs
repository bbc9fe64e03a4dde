//! What can become of an offset, an object and a row. Each thing has exactly one outcome (BOOK-1).
//! The spellings are those of `catalog.outcome_count` and of the metrics' `outcome` label.

macro_rules! outcome {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant,)+ }
        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant,)+];
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }
        }
    };
}

outcome! {
    /// What became of an offset.
    OffsetOutcome {
        /// Its message announced objects or was a record.
        Decoded = "decoded",
        /// Its message says nothing about objects, such as a test event.
        Ignored = "ignored",
        /// Its message could not be understood and is a dead letter.
        Rejected = "rejected",
        /// The log holds no message there: compaction, transaction markers, aborted transactions.
        Absent = "absent",
        /// An operator moved the group past it.
        Skipped = "skipped",
        /// A replay found its message deleted: what the replaced micro-batch made of it stands.
        Carried = "carried",
    }
}

outcome! {
    /// What became of an object that a message announced.
    ObjectOutcome {
        Emitted = "emitted",
        /// Its version is claimed by a live micro-batch.
        Duplicate = "duplicate",
        /// It was overwritten before it could be read.
        Stale = "stale",
        /// No connector wants it: another bucket or prefix, our own lake, a removal.
        Filtered = "filtered",
        Missing = "missing",
        /// It cannot be read as what the connector says; its bytes are kept as a dead letter.
        Quarantined = "quarantined",
        /// Its connector is stopped.
        Parked = "parked",
        /// A replay found it gone: the rows that the replaced micro-batch made of it stand.
        Carried = "carried",
    }
}

outcome! {
    /// What became of a row that was read.
    RowOutcome {
        Passed = "passed",
        /// An expectation with `on_fail: drop` let it go.
        Filtered = "filtered",
        /// Another row of the micro-batch with the same dedupe key won.
        Duplicate = "duplicate",
        /// It is a dead letter.
        Rejected = "rejected",
    }
}
