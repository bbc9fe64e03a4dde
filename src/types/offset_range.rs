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

    /// What of it lies outside `other`, before and behind.
    pub fn minus(self, other: Self) -> Vec<Self> {
        let before = Self { first: self.first, next: self.next.min(other.first) };
        let behind = Self { first: self.first.max(other.next), next: self.next };
        [before, behind].into_iter().filter(|range| range.first < range.next).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: i64, next: i64) -> OffsetRange {
        OffsetRange::new(first, next).expect("a range of the test's own")
    }

    #[test]
    fn minus_leaves_what_lies_before_and_behind() {
        assert_eq!(range(10, 20).minus(range(12, 15)), [range(10, 12), range(15, 20)]);
        assert_eq!(range(10, 20).minus(range(0, 15)), [range(15, 20)]);
        assert_eq!(range(10, 20).minus(range(15, 30)), [range(10, 15)]);
        assert_eq!(range(10, 20).minus(range(10, 20)), []);
        assert_eq!(range(10, 20).minus(range(30, 40)), [range(10, 20)]);
        assert_eq!(range(10, 20).minus(range(0, 5)), [range(10, 20)]);
    }
}
