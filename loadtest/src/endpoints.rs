//! Where the servers are, and plain clients for them.

use anyhow::{Context, Result};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region, RequestChecksumCalculation};
use rdkafka::ClientConfig;
use tokio_postgres::NoTls;

#[derive(Debug, Clone)]
pub struct S3Target {
    pub endpoint: Option<String>,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
}

#[derive(Debug, Clone)]
pub struct Endpoints {
    pub kafka_brokers: String,
    pub raw: S3Target,
    pub lake: S3Target,
    pub lake_bucket: String,
    pub warehouse_dsn: String,
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn required(name: &str) -> Result<String> {
    variable(name).with_context(|| format!("{name} is not set: source the stack's settings.env"))
}

impl Endpoints {
    /// From the variables that `sluice` reads: the lake defaults to raw, the warehouse to the catalog.
    pub fn from_env() -> Result<Self> {
        let raw = S3Target {
            endpoint: variable("SLUICE_S3__RAW__ENDPOINT"),
            region: variable("SLUICE_S3__RAW__REGION").unwrap_or_else(|| "us-east-1".into()),
            access_key_id: required("SLUICE_S3__RAW__ACCESS_KEY_ID")?,
            secret_access_key: required("SLUICE_S3__RAW__SECRET_ACCESS_KEY")?,
        };
        let lake = S3Target {
            endpoint: variable("SLUICE_S3__LAKE__ENDPOINT").or_else(|| raw.endpoint.clone()),
            region: variable("SLUICE_S3__LAKE__REGION").unwrap_or_else(|| raw.region.clone()),
            access_key_id: variable("SLUICE_S3__LAKE__ACCESS_KEY_ID").unwrap_or_else(|| raw.access_key_id.clone()),
            secret_access_key: variable("SLUICE_S3__LAKE__SECRET_ACCESS_KEY")
                .unwrap_or_else(|| raw.secret_access_key.clone()),
        };
        let warehouse = variable("SLUICE_WAREHOUSE__DSN").map_or_else(|| required("SLUICE_CATALOG__DSN"), Ok)?;
        Ok(Self {
            kafka_brokers: required("SLUICE_KAFKA__BROKERS")?,
            raw,
            lake,
            lake_bucket: variable("SLUICE_S3__LAKE_BUCKET").unwrap_or_else(|| "lake".into()),
            warehouse_dsn: warehouse,
        })
    }

    pub fn kafka(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.kafka_brokers).set("client.id", "sluice-loadtest");
        config
    }

    /// A connection whose driver ends with it.
    pub async fn warehouse(&self) -> Result<tokio_postgres::Client> {
        let (client, connection) =
            tokio_postgres::connect(&self.warehouse_dsn, NoTls).await.context("could not reach the warehouse")?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl S3Target {
    pub fn client(&self) -> aws_sdk_s3::Client {
        let credentials = Credentials::new(&self.access_key_id, &self.secret_access_key, None, None, "loadtest");
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(self.region.clone()))
            .credentials_provider(credentials)
            // some stores know only the checksums of old
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .force_path_style(self.endpoint.is_some());
        if let Some(endpoint) = &self.endpoint {
            config = config.endpoint_url(endpoint);
        }
        aws_sdk_s3::Client::from_conf(config.build())
    }
}
