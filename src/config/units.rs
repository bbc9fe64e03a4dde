//! Units of measurement whose ratios are exact.
//!
//! A unit is a whole number of its dimension's atom, so that converting is one multiplication and one division of
//! whole numbers. Sources: SI Brochure, 9th edition; international yard and pound (1959); IEC 80000-13. Read 2026-11.

/// What a unit measures, and so what can be converted into what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dimension {
    /// In nanograms.
    Mass,
    /// In micrometres.
    Length,
    /// In microlitres.
    Volume,
    /// In bytes.
    Data,
    /// In nanoseconds.
    Time,
}

/// One unit, by the symbol that people write. Letters count: `m` is a metre, `MB` is not `mb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unit {
    pub symbol: &'static str,
    dimension: Dimension,
    atoms: i128,
}

const fn unit(symbol: &'static str, dimension: Dimension, atoms: i128) -> Unit {
    Unit { symbol, dimension, atoms }
}

const UNITS: &[Unit] = &[
    unit("ug", Dimension::Mass, 1_000),
    unit("mg", Dimension::Mass, 1_000_000),
    unit("g", Dimension::Mass, 1_000_000_000),
    unit("kg", Dimension::Mass, 1_000_000_000_000),
    unit("t", Dimension::Mass, 1_000_000_000_000_000),
    unit("oz", Dimension::Mass, 28_349_523_125),
    unit("lb", Dimension::Mass, 453_592_370_000),
    unit("um", Dimension::Length, 1),
    unit("mm", Dimension::Length, 1_000),
    unit("cm", Dimension::Length, 10_000),
    unit("m", Dimension::Length, 1_000_000),
    unit("km", Dimension::Length, 1_000_000_000),
    unit("in", Dimension::Length, 25_400),
    unit("ft", Dimension::Length, 304_800),
    unit("yd", Dimension::Length, 914_400),
    unit("mi", Dimension::Length, 1_609_344_000),
    unit("ul", Dimension::Volume, 1),
    unit("ml", Dimension::Volume, 1_000),
    unit("cl", Dimension::Volume, 10_000),
    unit("l", Dimension::Volume, 1_000_000),
    unit("B", Dimension::Data, 1),
    unit("kB", Dimension::Data, 1_000),
    unit("MB", Dimension::Data, 1_000_000),
    unit("GB", Dimension::Data, 1_000_000_000),
    unit("TB", Dimension::Data, 1_000_000_000_000),
    unit("KiB", Dimension::Data, 1 << 10),
    unit("MiB", Dimension::Data, 1 << 20),
    unit("GiB", Dimension::Data, 1 << 30),
    unit("TiB", Dimension::Data, 1 << 40),
    unit("ns", Dimension::Time, 1),
    unit("us", Dimension::Time, 1_000),
    unit("ms", Dimension::Time, 1_000_000),
    unit("s", Dimension::Time, 1_000_000_000),
    unit("min", Dimension::Time, 60_000_000_000),
    unit("h", Dimension::Time, 3_600_000_000_000),
    unit("d", Dimension::Time, 86_400_000_000_000),
];

impl Unit {
    /// Also with the letter µ (either of the two that look so), and a capital L for litres.
    pub fn of(symbol: &str) -> Option<Self> {
        let find = |symbol: &str| UNITS.iter().find(|unit| unit.symbol == symbol).copied();
        find(symbol).or_else(|| match symbol {
            "L" => find("l"),
            "mL" => find("ml"),
            "cL" => find("cl"),
            _ => find(&format!("u{}", symbol.strip_prefix(['µ', 'μ'])?)),
        })
    }

    pub(super) fn symbols() -> impl Iterator<Item = &'static str> {
        UNITS.iter().map(|unit| unit.symbol)
    }

    /// How many of `other` one of this is, as a fraction in lowest terms; `None` where they measure different things.
    pub fn ratio(self, other: Self) -> Option<(i128, i128)> {
        let divisor = greatest_common_divisor(self.atoms, other.atoms);
        (self.dimension == other.dimension).then_some((self.atoms / divisor, other.atoms / divisor))
    }
}

fn greatest_common_divisor(a: i128, b: i128) -> i128 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(a: &str, b: &str) -> Option<(i128, i128)> {
        Unit::of(a)?.ratio(Unit::of(b)?)
    }

    #[test]
    fn ratios_are_those_of_their_standards() {
        for (a, b, expected) in [
            ("kg", "g", (1_000, 1)),
            ("lb", "oz", (16, 1)),
            ("lb", "kg", (45_359_237, 100_000_000)),
            ("mi", "ft", (5_280, 1)),
            ("in", "cm", (127, 50)),
            ("MiB", "MB", (16_384, 15_625)),
            ("d", "s", (86_400, 1)),
            ("min", "h", (1, 60)),
            ("L", "cl", (100, 1)),
            ("\u{b5}s", "ns", (1_000, 1)),
            ("\u{3bc}s", "ns", (1_000, 1)),
        ] {
            assert_eq!(ratio(a, b), Some(expected), "{a} in {b}");
        }
        assert_eq!(ratio("kg", "km"), None);
        assert!(Unit::of("KG").is_none() && Unit::of("").is_none() && Unit::of("u").is_none());
    }

    #[test]
    fn no_symbol_stands_for_two_units() {
        let mut symbols: Vec<&str> = Unit::symbols().collect();
        symbols.sort_unstable();
        symbols.dedup();
        assert_eq!(symbols.len(), UNITS.len());
    }
}
