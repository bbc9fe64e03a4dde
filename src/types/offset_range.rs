use std::fmt;

/// A half-open range of offsets `[first, next)` of one topic partition; `first <= next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct OffsetRange {
    first: i64,
    next: i64,
}

impl OffsetRange {
    /// `None` where `first > next` or `first < 0`.
    pub fn new(first: i64, next: i64) -> Option<Self> {
        (0 <= first && first <= next).then_some(Self { first, next })
    }

    pub fn first(self) -> i64 {
        self.first
    }

    /// The first offset after the range.
    pub fn next(self) -> i64 {
        self.next
    }

    /// Number of offsets, present in the log or not.
    pub fn count(self) -> u64 {
        (self.next - self.first).unsigned_abs()
    }

    pub fn is_empty(self) -> bool {
        self.first == self.next
    }

    pub fn contains(self, offset: i64) -> bool {
        self.first <= offset && offset < self.next
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.first, self.next)
    }
}
