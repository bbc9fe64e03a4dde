//! Brings the schemas of catalog and warehouse up to date, and tells whether this binary fits them.
//!
//! # Contract
//! [`migrate`] is idempotent and safe to run from many processes at once: an advisory lock on a
//! connection of its own lets one work while the others wait. Each migration is one transaction.
//! Both schemas may live in one database: each keeps its own history table.
//!
//! # Which binary fits which schema
//! `schema_info.version` equals the newest migration applied (a test holds the files to it).
//!
//! | schema | binary |
//! |---|---|
//! | absent or older than the binary's newest migration | refused: run `sluice migrate` |
//! | the same | works |
//! | newer, `compatible_from` at most the binary's newest | works |
//! | newer, `compatible_from` beyond it | refused: upgrade the binary |
//!
//! # Crash consistency
//! The lock dies with its connection; a migration that was under way is rolled back.

use deadpool_postgres::{ClientWrapper, Object, Pool};
use refinery::{Migration, Runner};
use thiserror::Error;
use tokio_postgres::GenericClient;

use crate::client::postgres::{self, PostgresError};
use crate::error::ErrorKind;

/// `pg_advisory_lock` of everyone who migrates, whichever schema: the letters `sluice_m`.
const MIGRATION_LOCK: i64 = 0x736c_7569_6365_5f6d;

/// A schema that this project owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Database {
    Catalog,
    Warehouse,
}

/// What [`migrate`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationReport {
    pub database: Database,
    /// `V1__create_catalog`, in the order in which they ran; empty where nothing was to do.
    pub applied: Vec<String>,
    /// `schema_info.version` afterwards.
    pub version: i32,
}

/// Applies what the database lacks. A schema that is newer and compatible is left alone.
pub async fn migrate(pool: &Pool, database: Database) -> Result<MigrationReport, MigrateError> {
    // Out of the pool, so that the lock ends with this connection whatever happens.
    let mut client = Object::take(postgres::get(pool).await.map_err(MigrateError::Connect)?);
    let lock = format!(
        "SET statement_timeout = 0; SET client_min_messages = warning; SELECT pg_advisory_lock({MIGRATION_LOCK})"
    );
    client.batch_execute(&lock).await.map_err(MigrateError::Lock)?;
    if let Some(found) = read_schema_info(&*client, database).await.map_err(MigrateError::ReadSchema)?
        && found.version > database.newest_version()
    {
        fits(database, Some(found)).map_err(MigrateError::Mismatch)?;
        return Ok(MigrationReport { database, applied: Vec::new(), version: found.version });
    }
    let applied = apply(&mut client, database).await?;
    let version = match read_schema_info(&*client, database).await.map_err(MigrateError::ReadSchema)? {
        Some(found) => found.version,
        None => return Err(MigrateError::Mismatch(SchemaMismatch::Absent { database })),
    };
    Ok(MigrationReport { database, applied, version })
}

/// Refuses a schema that this binary must not work with.
pub async fn check_schema(client: &impl GenericClient, database: Database) -> Result<(), SchemaMismatch> {
    let found = read_schema_info(client, database).await.map_err(|source| SchemaMismatch::Read { database, source })?;
    fits(database, found)
}

async fn apply(client: &mut ClientWrapper, database: Database) -> Result<Vec<String>, MigrateError> {
    let mut runner = Runner::new(&database.migrations());
    runner.set_migration_table_name(database.history_table());
    let report = runner
        .run_async(&mut **client)
        .await
        .map_err(|source| MigrateError::Apply { database, source: Box::new(source) })?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

#[derive(Debug, Clone, Copy)]
struct SchemaInfo {
    version: i32,
    compatible_from: i32,
}

fn fits(database: Database, found: Option<SchemaInfo>) -> Result<(), SchemaMismatch> {
    let newest = database.newest_version();
    match found {
        None => Err(SchemaMismatch::Absent { database }),
        Some(SchemaInfo { version, .. }) if version < newest => {
            Err(SchemaMismatch::TooOld { database, version, newest })
        }
        Some(SchemaInfo { version, compatible_from }) if compatible_from > newest => {
            Err(SchemaMismatch::TooNew { database, version, compatible_from, newest })
        }
        Some(_) => Ok(()),
    }
}

async fn read_schema_info(
    client: &impl GenericClient,
    database: Database,
) -> Result<Option<SchemaInfo>, tokio_postgres::Error> {
    let name = database.name();
    let exists = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&format!("{name}.schema_info")]).await?;
    if !exists.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_opt(&format!("SELECT version, compatible_from FROM {name}.schema_info"), &[]).await?;
    Ok(row.map(|row| SchemaInfo { version: row.get(0), compatible_from: row.get(1) }))
}

impl Database {
    pub const ALL: [Self; 2] = [Self::Catalog, Self::Warehouse];

    /// The schema's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Catalog => "catalog",
            Self::Warehouse => "warehouse",
        }
    }

    /// Version of the newest migration this binary knows.
    pub fn newest_version(self) -> i32 {
        self.migrations().iter().map(Migration::version).max().unwrap_or(0)
    }

    fn history_table(self) -> &'static str {
        match self {
            Self::Catalog => "sluice_catalog_migrations",
            Self::Warehouse => "sluice_warehouse_migrations",
        }
    }

    /// Listed by hand: a macro that reads the folder would not see a new file until something else is rebuilt.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Catalog => &[
                ("V0001__create_catalog", include_str!("../../migrations/catalog/V0001__create_catalog.sql")),
                ("V0002__replay", include_str!("../../migrations/catalog/V0002__replay.sql")),
                ("V0003__masks", include_str!("../../migrations/catalog/V0003__masks.sql")),
                ("V0004__redrive", include_str!("../../migrations/catalog/V0004__redrive.sql")),
                ("V0005__attempts", include_str!("../../migrations/catalog/V0005__attempts.sql")),
                ("V0006__expectations", include_str!("../../migrations/catalog/V0006__expectations.sql")),
                ("V0007__schema_versions", include_str!("../../migrations/catalog/V0007__schema_versions.sql")),
                ("V0008__object_chunk", include_str!("../../migrations/catalog/V0008__object_chunk.sql")),
            ],
            Self::Warehouse => &[
                ("V0001__create_warehouse", include_str!("../../migrations/warehouse/V0001__create_warehouse.sql")),
                ("V0002__shadow", include_str!("../../migrations/warehouse/V0002__shadow.sql")),
                ("V0003__masks", include_str!("../../migrations/warehouse/V0003__masks.sql")),
                ("V0004__resolution", include_str!("../../migrations/warehouse/V0004__resolution.sql")),
                ("V0005__sealing", include_str!("../../migrations/warehouse/V0005__sealing.sql")),
                ("V0006__views", include_str!("../../migrations/warehouse/V0006__views.sql")),
                ("V0007__rollups", include_str!("../../migrations/warehouse/V0007__rollups.sql")),
                ("V0008__digest", include_str!("../../migrations/warehouse/V0008__digest.sql")),
                ("V0009__history", include_str!("../../migrations/warehouse/V0009__history.sql")),
            ],
        }
    }

    fn migrations(self) -> Vec<Migration> {
        let parse = |(name, sql): &(&str, &str)| Migration::unapplied(name, sql).expect("a test parses every name");
        self.files().iter().map(parse).collect()
    }
}

/// Why this binary must not work with a schema.
#[derive(Debug, Error)]
pub enum SchemaMismatch {
    #[error("the {} has no tables yet: run `sluice migrate`", database.name())]
    Absent { database: Database },
    #[error("the {}'s schema is version {version}, this sluice needs {newest}: run `sluice migrate`", database.name())]
    TooOld { database: Database, version: i32, newest: i32 },
    #[error(
        "the {}'s schema is version {version}, for binaries that know at least version {compatible_from}; \
         this sluice knows {newest}: upgrade it",
        database.name()
    )]
    TooNew { database: Database, version: i32, compatible_from: i32, newest: i32 },
    #[error("could not read the version of the {}'s schema", database.name())]
    Read { database: Database, source: tokio_postgres::Error },
}

impl SchemaMismatch {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Absent { .. } | Self::TooOld { .. } | Self::TooNew { .. } => ErrorKind::Invalid,
            Self::Read { source, .. } => postgres::kind_of(source),
        }
    }
}

#[derive(Debug, Error)]
pub enum MigrateError {
    #[error("could not connect to migrate")]
    Connect(#[source] PostgresError),
    #[error("could not take the migration lock")]
    Lock(#[source] tokio_postgres::Error),
    #[error("could not read the version of the schema")]
    ReadSchema(#[source] tokio_postgres::Error),
    #[error("could not migrate the {}", database.name())]
    Apply { database: Database, source: Box<refinery::Error> },
    #[error("cannot migrate")]
    Mismatch(#[source] SchemaMismatch),
}

impl MigrateError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect(source) => source.kind(),
            Self::Lock(source) | Self::ReadSchema(source) => postgres::kind_of(source),
            Self::Apply { source, .. } => match source.kind() {
                refinery::error::Kind::Connection(_, cause) => {
                    cause.downcast_ref::<tokio_postgres::Error>().map_or(ErrorKind::Halt, postgres::kind_of)
                }
                _ => ErrorKind::Halt,
            },
            Self::Mismatch(source) => source.kind(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        for database in Database::ALL {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(database.name());
            let mut names: Vec<String> = std::fs::read_dir(&folder)
                .expect("the folder exists")
                .map(|entry| entry.expect("readable").path().file_stem().expect("named").to_string_lossy().into_owned())
                .collect();
            names.sort();
            let embedded: Vec<&str> = database.files().iter().map(|(name, _)| *name).collect();
            assert_eq!(names, embedded, "{database:?}");
            assert_eq!(database.migrations().len(), embedded.len());
        }
    }

    /// Whoever has applied one is refused by any other text of it. A new one is added here when it is released.
    #[test]
    fn what_was_applied_anywhere_stays_as_it_was() {
        /// Eight bytes of the SHA-256 of each.
        const RELEASED: [(&str, &str, u64); 17] = [
            ("catalog", "V0001__create_catalog", 0xa15e_4d36_9490_478c),
            ("catalog", "V0002__replay", 0xab1a_60dc_6370_3160),
            ("catalog", "V0003__masks", 0xdf93_d377_7dcf_ba82),
            ("catalog", "V0004__redrive", 0xd586_6372_9071_9db1),
            ("catalog", "V0005__attempts", 0x690b_6f47_c8fe_1cd8),
            ("catalog", "V0006__expectations", 0x393f_6390_668d_1258),
            ("catalog", "V0007__schema_versions", 0x6fc7_cef2_6dc9_26e2),
            ("catalog", "V0008__object_chunk", 0xd575_d8a8_58d7_f190),
            ("warehouse", "V0001__create_warehouse", 0xa80c_d1ee_7c58_7429),
            ("warehouse", "V0002__shadow", 0xcfc4_efbe_8556_62fc),
            ("warehouse", "V0003__masks", 0xe78d_cd7c_2a78_1563),
            ("warehouse", "V0004__resolution", 0xf74b_aa33_2765_b5cd),
            ("warehouse", "V0005__sealing", 0x8699_8e64_d118_d5ed),
            ("warehouse", "V0006__views", 0x7f03_e640_1190_5007),
            ("warehouse", "V0007__rollups", 0xf9e5_1f71_748d_8730),
            ("warehouse", "V0008__digest", 0x5076_54f7_d65c_628e),
            ("warehouse", "V0009__history", 0xef3e_3838_57b5_7424),
        ];
        let texts =
            Database::ALL.into_iter().flat_map(|database| database.files().iter().map(move |file| (database, file)));
        let hashes: Vec<(&str, &str, Vec<u8>)> =
            texts.map(|(database, (name, sql))| (database.name(), *name, Sha256::digest(sql)[..8].to_vec())).collect();
        for (database, name, hash) in RELEASED {
            let found = hashes.iter().find(|found| (found.0, found.1) == (database, name));
            assert_eq!(
                found.map(|found| found.2.as_slice()),
                Some(&hash.to_be_bytes()[..]),
                "write a new migration instead of changing {name}"
            );
        }
    }

    #[test]
    fn a_schema_fits_where_it_is_as_new_or_newer_and_compatible() {
        let info = |version, compatible_from| Some(SchemaInfo { version, compatible_from });
        let newest = Database::Catalog.newest_version();
        assert!(fits(Database::Catalog, info(newest, newest)).is_ok());
        assert!(fits(Database::Catalog, info(newest + 1, newest)).is_ok());
        let message = |found| fits(Database::Catalog, found).expect_err("refused").to_string();
        assert_eq!(message(None), "the catalog has no tables yet: run `sluice migrate`");
        assert_eq!(
            message(info(0, 0)),
            format!("the catalog's schema is version 0, this sluice needs {newest}: run `sluice migrate`")
        );
        assert!(message(info(newest + 2, newest + 1)).ends_with(&format!("this sluice knows {newest}: upgrade it")));
    }
}
