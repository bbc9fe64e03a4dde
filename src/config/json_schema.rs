//! JSON Schemas of the YAML files, for editors. `connectors/schema/` holds them; `sluice schema` prints them.

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw_connector::RawConnector;
use super::raw_settings::RawSettings;
use super::topics::RawTopic;

/// A kind of file that has a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaKind {
    Connector,
    Topic,
    Settings,
}

impl SchemaKind {
    pub const ALL: [Self; 3] = [Self::Connector, Self::Topic, Self::Settings];

    /// Below `connectors/schema/`.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Connector => "connector.json",
            Self::Topic => "topic.json",
            Self::Settings => "settings.json",
        }
    }

    /// The schema, indented, with a line end.
    pub fn json(self) -> String {
        let (schema, title) = match self {
            Self::Connector => (of::<RawConnector>(), "Sluice connector"),
            Self::Topic => (of::<RawTopic>(), "Sluice topic"),
            Self::Settings => (of::<RawSettings>(), "Sluice settings"),
        };
        let mut schema = schema;
        schema["title"] = title.into();
        format!("{schema:#}\n")
    }
}

pub(super) fn of<T: JsonSchema>() -> Value {
    // Draft 7: what the YAML language server of editors understands best.
    let schema = SchemaSettings::draft07().for_deserialize().into_generator().into_root_schema_for::<T>();
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_schemas_are_the_generated_ones() {
        for kind in SchemaKind::ALL {
            let path =
                std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("connectors/schema").join(kind.file_name());
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            let file = kind.file_name();
            assert!(committed == kind.json(), "{file} is out of date: run `sluice schema --write connectors/schema`");
        }
    }
}
