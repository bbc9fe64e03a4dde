//! What the history of a dimension must be, worked out without SQL: for every moment at which anything changes, the version that holds
//! then is looked for among all of them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tokio_postgres::Client;

/// A row of a member, whether it won or lost.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    /// Natural key.
    pub(crate) member: String,
    /// Microseconds; `None`: nobody has said anything about the member.
    pub(crate) at: Option<i64>,
    /// Among those of one time: object time, object hash, row.
    pub(crate) rank: (i64, i64, i64),
    /// Of the tracked columns.
    pub(crate) values: Vec<Option<String>>,
}

/// From when to when a member had these values; `None` has no end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Interval {
    pub(crate) member: String,
    pub(crate) from: Option<i64>,
    pub(crate) to: Option<i64>,
    pub(crate) values: Vec<Option<String>>,
}

/// A history that is kept: its dimension, natural key and tracked columns.
pub(crate) struct Kept {
    pub(crate) dimension: String,
    pub(crate) natural_key: String,
    pub(crate) columns: Vec<String>,
}

/// Sorted, every member from the beginning of time to its end.
pub(crate) fn intervals(versions: Vec<Version>) -> Vec<Interval> {
    let mut members: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    for version in versions {
        members.entry(version.member.clone()).or_default().push(version);
    }
    let mut intervals: Vec<Interval> = Vec::new();
    for (member, versions) in members {
        let moments: BTreeSet<Option<i64>> = versions.iter().map(|version| version.at).collect();
        for (number, moment) in moments.iter().enumerate() {
            let known = versions.iter().filter(|version| version.at <= *moment);
            let holds = known.max_by_key(|version| (version.at, version.rank)).expect("one begins then");
            match intervals.last_mut() {
                Some(last) if last.member == member && last.values == holds.values => {}
                last => {
                    let is_first = number == 0;
                    if let Some(last) = last.filter(|_| !is_first) {
                        last.to = *moment;
                    }
                    let (from, values) = (moment.filter(|_| !is_first), holds.values.clone());
                    intervals.push(Interval { member: member.clone(), from, to: None, values });
                }
            }
        }
    }
    intervals
}

pub(crate) async fn kept(client: &Client) -> Vec<Kept> {
    let rows = client.query("SELECT definition::text FROM warehouse.dimension_history ORDER BY dimension", &[]).await;
    let parsed = rows.expect("the warehouse answers");
    let parsed = parsed.iter().map(|row| serde_json::from_str::<Value>(row.get(0)).expect("JSON"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    parsed
        .map(|history| Kept {
            dimension: text(&history["dimension"]),
            natural_key: text(&history["natural_key"]),
            columns: history["columns"].as_array().expect("a list").iter().map(|c| text(&c["name"])).collect(),
        })
        .collect()
}

impl Kept {
    fn values(&self) -> String {
        let values = self.columns.iter().map(|column| format!("to_jsonb(t)->>'{column}'"));
        format!("ARRAY[{}]", values.collect::<Vec<_>>().join(", "))
    }

    /// As the table has them, sorted. Every member has one that begins with time and one that ends with it; each begins where the one
    /// before it ends, with other values.
    pub(crate) async fn stored(&self, client: &Client) -> Vec<Interval> {
        let micros =
            |time: &str| format!("CASE WHEN isfinite({time}) THEN (extract(epoch FROM {time}) * 1000000)::bigint END");
        let sql = format!(
            "SELECT {}, {}, {}, {} FROM warehouse.{}_history t ORDER BY 1, valid_from",
            self.natural_key,
            micros("valid_from"),
            micros("valid_to"),
            self.values(),
            self.dimension
        );
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let interval = |row: &tokio_postgres::Row| Interval {
            member: row.get(0),
            from: row.get(1),
            to: row.get(2),
            values: row.get(3),
        };
        let mut intervals: Vec<Interval> = rows.iter().map(interval).collect();
        // the server sorts texts by its own rules
        intervals.sort();
        for (number, interval) in intervals.iter().enumerate() {
            let before = number.checked_sub(1).map(|before| &intervals[before]).filter(|b| b.member == interval.member);
            assert_eq!(
                before.and_then(|before| before.to),
                interval.from,
                "a gap or an overlap: {before:?} {interval:?}"
            );
            assert!(before.is_none_or(|before| before.to.is_some()), "it never begins: {before:?} {interval:?}");
            assert!(
                before.is_none_or(|before| before.values != interval.values),
                "they are one: {before:?} {interval:?}"
            );
            let is_last = intervals.get(number + 1).is_none_or(|next| next.member != interval.member);
            assert_eq!(interval.to.is_none(), is_last, "it ends, and nothing follows: {interval:?}");
        }
        intervals
    }

    /// What the dimension and its shadow hold.
    async fn versions(&self, client: &Client) -> Vec<Version> {
        let select = |table: &str| {
            let columns = "(extract(epoch FROM _newer_at) * 1000000)::bigint, (extract(epoch FROM _object_time) * 1000000)::bigint, \
                           _object_hash, _row";
            format!("SELECT {}, {columns}, {} FROM warehouse.{table} t", self.natural_key, self.values())
        };
        let sql = format!("{} UNION ALL {}", select(&self.dimension), select(&format!("{}_shadow", self.dimension)));
        let rows = client.query(&sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        let number = |row: &tokio_postgres::Row, place: usize| row.get::<_, Option<i64>>(place).unwrap_or_default();
        let version = |row: &tokio_postgres::Row| Version {
            member: row.get(0),
            at: row.get(1),
            rank: (number(row, 2), number(row, 3), number(row, 4)),
            values: row.get(5),
        };
        rows.iter().map(version).collect()
    }
}

/// Every history is what the rows of its dimension and of the dimension's shadow make. Returns how many intervals there are.
pub(crate) async fn check_histories(client: &Client) -> usize {
    let mut count = 0;
    for history in kept(client).await {
        let (stored, should) = (history.stored(client).await, intervals(history.versions(client).await));
        assert_same(&history.dimension, &stored, &should);
        count += stored.len();
    }
    count
}

pub(crate) fn assert_same(dimension: &str, stored: &[Interval], should: &[Interval]) {
    let (is, ought): (BTreeSet<_>, BTreeSet<_>) = (stored.iter().collect(), should.iter().collect());
    let (too_many, missing): (Vec<_>, Vec<_>) = (is.difference(&ought).collect(), ought.difference(&is).collect());
    assert!(
        too_many.is_empty() && missing.is_empty(),
        "{dimension}: {} intervals should not be there so: {:#?}\n{} should: {:#?}",
        too_many.len(),
        &too_many[..too_many.len().min(5)],
        missing.len(),
        &missing[..missing.len().min(5)]
    );
}

#[test]
fn intervals_are_split_merged_and_ranked() {
    let version = |at: Option<i64>, rank: i64, value: &str| Version {
        member: "a".to_owned(),
        at,
        rank: (rank, 0, 0),
        values: vec![Some(value.to_owned())],
    };
    let found = |versions: &[Version]| -> Vec<String> {
        let shown = |bound: Option<i64>| bound.map_or("-".to_owned(), |bound| bound.to_string());
        let interval =
            |i: &Interval| format!("{}..{} {}", shown(i.from), shown(i.to), i.values[0].as_deref().unwrap_or("null"));
        intervals(versions.to_vec()).iter().map(interval).collect()
    };
    assert_eq!(found(&[version(None, 0, "x")]), ["-..- x"]);
    assert_eq!(found(&[version(Some(5), 0, "x"), version(Some(9), 0, "y")]), ["-..9 x", "9..- y"]);
    let late = [version(Some(5), 0, "x"), version(Some(9), 0, "x"), version(Some(7), 0, "y")];
    assert_eq!(found(&late), ["-..7 x", "7..9 y", "9..- x"]);
    assert_eq!(found(&late[..2]), ["-..- x"]);
    assert_eq!(found(&[version(Some(5), 2, "x"), version(Some(5), 1, "y")]), ["-..- x"], "the higher rank counts");
}
