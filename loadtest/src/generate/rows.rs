//! Entities of the four kinds, how they are written and how they must arrive.

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

use super::{Dataset, Fate, PRODUCTS, Passing, Row, USERS};
use crate::canonical::{self, Canonical, cents, row_hash};

const SOURCES: &[&str] = &["web", "mobile", "pos", "partner", "call center"];
const CURRENCIES: &[&str] = &["USD", "EUR", "GBP", "JPY"];
const EVENT_TYPES: &[&str] = &["view", "click", "add_to_cart", "checkout", "search"];
const COUNTRIES: &[&str] = &["US", "DE", "FR", "GB", "JP", "BR"];
const CATEGORIES: &[&str] = &["audio", "kitchen", "garden", "toys"];
const HOUR_MS: i64 = 3_600_000;

/// What an entity is made from.
pub(super) struct Seeds {
    pub(super) id: u128,
    /// From 1.
    pub(super) user: u32,
    pub(super) product: u32,
    pub(super) late: bool,
    pub(super) base_time_ms: i64,
    pub(super) hours: u32,
}

/// A clean row: each field as it is written and as it must arrive.
#[derive(Debug, Clone)]
pub(super) struct Entity {
    pub(super) fields: Vec<FieldValue>,
    /// Unknown fields, for connectors that rescue them.
    extra: Map<String, Value>,
    heartbeat: bool,
}

#[derive(Debug, Clone)]
pub(super) struct FieldValue {
    pub(super) name: &'static str,
    /// As JSON; `None`: the field is left out.
    pub(super) written: Option<Value>,
    pub(super) arrives: Canonical,
}

fn field(name: &'static str, written: impl Into<Value>, arrives: impl Into<String>) -> FieldValue {
    FieldValue { name, written: Some(written.into()), arrives: Some(arrives.into()) }
}

fn optional(name: &'static str, value: Option<String>) -> FieldValue {
    FieldValue { name, written: value.clone().map(Value::from), arrives: value }
}

pub(super) fn uuid_text(id: u128) -> String {
    uuid::Uuid::from_u128(id).to_string()
}

fn user_id(user: u32) -> String {
    format!("u{user:05}")
}

fn product_id(product: u32) -> String {
    format!("p{product:04}")
}

pub(super) fn rfc3339(milliseconds: i64) -> String {
    chrono::DateTime::from_timestamp_millis(milliseconds)
        .expect("times of the generator are within the calendar")
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A time, as text or as a number.
fn time(rng: &mut StdRng, name: &'static str, milliseconds: i64) -> FieldValue {
    let written = if rng.random_bool(0.3) { Value::from(milliseconds) } else { Value::from(rfc3339(milliseconds)) };
    field(name, written, milliseconds.to_string())
}

fn pick<'a>(rng: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[rng.random_range(0..from.len())]
}

/// `source` with the dirt that cleaning mends: spaces around, empty, absent.
fn source(rng: &mut StdRng) -> FieldValue {
    let clean = pick(rng, SOURCES);
    match rng.random_range(0..20) {
        0 => field("source", "", "unknown"),
        1 => FieldValue { name: "source", written: None, arrives: Some("unknown".into()) },
        2 => field("source", format!("  {clean}\t"), clean),
        3 => FieldValue { name: "source", written: Some(Value::Null), arrives: Some("unknown".into()) },
        _ => field("source", clean, clean),
    }
}

fn currency(rng: &mut StdRng) -> FieldValue {
    let clean = pick(rng, CURRENCIES);
    match rng.random_range(0..10) {
        0 => field("currency", clean.to_lowercase(), clean),
        1 => field("currency", format!(" {clean} "), clean),
        2 => FieldValue { name: "currency", written: None, arrives: Some("USD".into()) },
        _ => field("currency", clean, clean),
    }
}

impl Entity {
    pub(super) fn new(rng: &mut StdRng, dataset: Dataset, seeds: &Seeds) -> Self {
        match dataset {
            Dataset::Transactions => Self::transaction(rng, seeds),
            Dataset::Events | Dataset::DirectEvents => Self::event(rng, dataset, seeds),
            Dataset::Users => Self::user(rng, seeds),
            Dataset::Products => Self::product(rng, seeds),
        }
    }

    /// Bursts: half of the rows fall into two hours.
    fn event_time(rng: &mut StdRng, seeds: &Seeds) -> i64 {
        let span = i64::from(seeds.hours.max(1)) * HOUR_MS;
        let back = if seeds.late {
            rng.random_range(span..span + 48 * HOUR_MS)
        } else if rng.random_bool(0.5) {
            rng.random_range(0..span.min(2 * HOUR_MS))
        } else {
            rng.random_range(0..span)
        };
        seeds.base_time_ms - back
    }

    fn transaction(rng: &mut StdRng, seeds: &Seeds) -> Self {
        let occurred = Self::event_time(rng, seeds);
        let amount = rng.random_range(1..500_000_i64);
        let written_amount = if rng.random_bool(0.2) {
            Value::from(cents(amount))
        } else {
            serde_json::from_str(&cents(amount)).expect("plain digits are JSON")
        };
        let attributes = json!({"channel": pick(rng, SOURCES), "gift": rng.random_bool(0.1)});
        let quantity = rng.random_range(1..20);
        let product = rng.random_bool(0.95).then(|| product_id(seeds.product));
        let user = user_id(seeds.user);
        let written_user = if rng.random_bool(0.02) { format!(" {user}") } else { user.clone() };
        let fields = vec![
            field("transaction_id", uuid_text(seeds.id).to_uppercase(), uuid_text(seeds.id)),
            field("user_id", written_user, user),
            optional("product_id", product),
            field("amount", written_amount, cents(amount)),
            currency(rng),
            field("quantity", quantity, quantity.to_string()),
            source(rng),
            time(rng, "occurred_at", occurred),
            time(rng, "updated_at", occurred + 1_000),
            field("attributes", attributes.clone(), attributes.to_string()),
        ];
        Self { fields, extra: Map::new(), heartbeat: false }
    }

    fn event(rng: &mut StdRng, dataset: Dataset, seeds: &Seeds) -> Self {
        let heartbeat = rng.random_bool(0.02);
        let event_type = if heartbeat { "heartbeat" } else { pick(rng, EVENT_TYPES) };
        let written_type = if rng.random_bool(0.05) { event_type.to_uppercase() } else { event_type.to_owned() };
        let properties = json!({"page": format!("/p/{}", seeds.product), "ms": rng.random_range(1..5_000)});
        let session = format!("s{:08x}", rng.random::<u32>());
        let (named, session_known) = (rng.random_bool(0.9), rng.random_bool(0.8));
        let event_time = Self::event_time(rng, seeds);
        let fields = vec![
            field("event_id", uuid_text(seeds.id), uuid_text(seeds.id)),
            optional("user_id", named.then(|| user_id(seeds.user))),
            optional("product_id", named.then(|| product_id(seeds.product))),
            field("event_type", written_type, event_type),
            optional("session_id", session_known.then_some(session)),
            source(rng),
            time(rng, "occurred_at", event_time),
            field("properties", properties.clone(), properties.to_string()),
        ];
        let mut extra = Map::new();
        if dataset == Dataset::Events && rng.random_bool(0.05) {
            extra.insert("ab_test".into(), Value::from(pick(rng, &["a", "b"])));
        }
        Self { fields, extra, heartbeat }
    }

    fn user(rng: &mut StdRng, seeds: &Seeds) -> Self {
        let user = rng.random_range(1..=USERS * 9 / 10);
        let updated = seeds.base_time_ms - rng.random_range(0..i64::from(seeds.hours.max(1)) * HOUR_MS);
        let email = format!("user{user}@example.com");
        let country = pick(rng, COUNTRIES);
        let fields = vec![
            field("user_id", user_id(user), user_id(user)),
            field("email", format!(" User{user}@Example.com"), email),
            field("name", format!("Name {:x}", seeds.id >> 96), format!("Name {:x}", seeds.id >> 96)),
            field("country", country.to_lowercase(), country),
            source(rng),
            time(rng, "updated_at", updated),
        ];
        Self { fields, extra: Map::new(), heartbeat: false }
    }

    fn product(rng: &mut StdRng, seeds: &Seeds) -> Self {
        let product = rng.random_range(1..=PRODUCTS * 9 / 10);
        let updated = seeds.base_time_ms - rng.random_range(0..i64::from(seeds.hours.max(1)) * HOUR_MS);
        let price = rng.random_range(0..100_000_i64);
        let category = pick(rng, CATEGORIES);
        let fields = vec![
            field("product_id", product_id(product), product_id(product)),
            field(
                "name",
                format!(" Product größe {:x}", seeds.id >> 96),
                format!("Product größe {:x}", seeds.id >> 96),
            ),
            optional("brand", rng.random_bool(0.8).then(|| "Acme".to_owned())),
            field("category", category.to_uppercase(), category),
            field("price", cents(price), cents(price)),
            currency(rng),
            source(rng),
            time(rng, "updated_at", updated),
        ];
        Self { fields, extra: Map::new(), heartbeat: false }
    }

    /// Makes a newer version of it; `false` where it has none (events).
    pub(super) fn update(&mut self, rng: &mut StdRng) -> bool {
        let Some(updated) = self.value("updated_at").and_then(|text| text.parse::<i64>().ok()) else { return false };
        let later = updated + rng.random_range(1..100_000);
        self.set(time(rng, "updated_at", later));
        if self.value("amount").is_some() {
            let amount = cents(rng.random_range(1..500_000));
            self.set(field("amount", amount.clone(), amount));
        }
        true
    }

    /// Without unknown fields.
    pub(super) fn known(&self) -> Self {
        Self { extra: Map::new(), ..self.clone() }
    }

    pub(super) fn value(&self, name: &str) -> Canonical {
        self.fields.iter().find(|field| field.name == name).and_then(|field| field.arrives.clone())
    }

    fn set(&mut self, value: FieldValue) {
        if let Some(slot) = self.fields.iter_mut().find(|field| field.name == value.name) {
            *slot = value;
        }
    }

    /// The object as it is written, in the order of its fields.
    pub(super) fn line(&self) -> Vec<u8> {
        let mut parts: Vec<String> = self
            .fields
            .iter()
            .filter_map(|field| field.written.as_ref().map(|value| format!("{}:{value}", Value::from(field.name))))
            .collect();
        parts.extend(self.extra.iter().map(|(name, value)| format!("{}:{value}", Value::from(name.as_str()))));
        format!("{{{}}}", parts.join(",")).into_bytes()
    }

    pub(super) fn row(&self, dataset: Dataset) -> Row {
        let fate = if self.heartbeat { Fate::Drop } else { Fate::Pass(self.passing(dataset)) };
        Row { line: self.line(), fate }
    }

    fn passing(&self, dataset: Dataset) -> Passing {
        let columns: Vec<Canonical> = self.fields.iter().map(|field| field.arrives.clone()).collect();
        let warehouse_hash = row_hash(&columns);
        let lake_hash = if dataset == Dataset::Events {
            let rescued =
                (!self.extra.is_empty()).then(|| canonical::json(&Value::Object(self.extra.clone()).to_string()));
            row_hash(&[columns, vec![rescued]].concat())
        } else {
            warehouse_hash
        };
        let text = |name: &str| self.value(name).unwrap_or_default();
        let key = match dataset {
            Dataset::Transactions => format!("{}@{}", text("transaction_id"), text("occurred_at")),
            Dataset::Events | Dataset::DirectEvents => format!("{}@{}", text("event_id"), text("occurred_at")),
            Dataset::Users => text("user_id"),
            Dataset::Products => text("product_id"),
        };
        let fact = matches!(dataset, Dataset::Transactions | Dataset::Events | Dataset::DirectEvents);
        Passing {
            key,
            order: self.value("updated_at").and_then(|text| text.parse().ok()).unwrap_or(0),
            lake_hash,
            warehouse_hash,
            user: fact.then(|| self.value("user_id")).flatten(),
            product: fact.then(|| self.value("product_id")).flatten(),
        }
    }
}
