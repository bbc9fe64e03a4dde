//! What the rows of a micro-batch are, in sixteen bytes.
//!
//! # Contract
//! Equal digests mean the same rows, with the same values and lineage, for the same columns of the same tables, in whatever order they
//! were read. Natural keys of members count, their surrogate keys do not. Each row is hashed and the hashes are added up, so a digest
//! guards against accidents, not against who makes up rows, and the hash is a fast one. Rows that look equal may have different
//! digests after an upgrade of Arrow or of that hash; then they are compared one by one, as without a digest.

use ahash::RandomState;
use arrow::array::RecordBatch;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use sha2::{Digest as _, Sha256};

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(u128);

impl Digest {
    /// Of rows for a table, their lineage among their columns. `shape`: what else decides which values the table gets.
    pub(super) fn of(table: &str, shape: &str, rows: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = rows.schema();
        let mut head = Sha256::new();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        for name in [table, shape].into_iter().chain(names) {
            head.update((name.len() as u64).to_le_bytes());
            head.update(name);
        }
        let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
        let encoded = RowConverter::new(fields)?.convert_columns(rows.columns())?;
        let head: [u8; 32] = head.finalize().into();
        let seed = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight of thirty-two bytes"));
        let halves = [(seed(0), seed(8)), (seed(16), seed(24))];
        let [one, other] = halves.map(|(a, b)| RandomState::with_seeds(a, b, a.rotate_left(32), b.rotate_left(32)));
        let mut sum = 0_u128;
        for row in &encoded {
            let bytes = row.as_ref();
            sum = sum.wrapping_add(u128::from(one.hash_one(bytes)) << 64 | u128::from(other.hash_one(bytes)));
        }
        Ok(Self(sum))
    }

    #[must_use]
    pub(super) fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }

    pub(super) fn bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn rows(key: &str, of: &[(i64, Option<String>)]) -> RecordBatch {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(of.iter().map(|(key, _)| *key)));
        let texts: ArrayRef = Arc::new(of.iter().map(|(_, text)| text.as_deref()).collect::<StringArray>());
        RecordBatch::try_from_iter_with_nullable([(key, keys, false), ("text", texts, true)]).expect("of one length")
    }

    fn digest(of: &[(i64, Option<String>)]) -> Digest {
        Digest::of("fact", "", &rows("key", of)).expect("plain types")
    }

    proptest! {
        #[test]
        fn neither_order_nor_cuts_count_and_every_row_does(
            mut of in vec((0..3_i64, proptest::option::of("[ab]{0,2}")), 1..12),
            cut in 0..12_usize,
            turn in 0..12_usize,
        ) {
            let whole = digest(&of);
            let (left, right) = of.split_at(cut.min(of.len()));
            prop_assert_eq!(digest(left).plus(digest(right)), whole);
            let middle = turn % of.len();
            of.rotate_left(middle);
            prop_assert_eq!(digest(&of), whole);
            let mut changed = of.clone();
            changed[0].1 = Some("c".to_owned());
            prop_assert_ne!(digest(&changed), whole);
            prop_assert_ne!(digest(&of[1..]), whole);
            let twice: Vec<_> = of.iter().chain(&of[..1]).cloned().collect();
            prop_assert_ne!(digest(&twice), whole);
        }
    }

    #[test]
    fn the_table_and_the_names_of_columns_count() {
        let of = [(1, Some("a".to_owned()))];
        assert_ne!(Digest::of("other", "", &rows("key", &of)).expect("plain types"), digest(&of));
        assert_ne!(Digest::of("fact", "", &rows("key2", &of)).expect("plain types"), digest(&of));
        assert_ne!(Digest::of("fact", "another link", &rows("key", &of)).expect("plain types"), digest(&of));
        assert_ne!(digest(&[(1, None)]), digest(&[(1, Some(String::new()))]));
    }
}
