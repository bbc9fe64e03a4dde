//! Connections to PostgreSQL: one pool a server and role, and what its errors mean.
//!
//! # Contract
//! A pool connects when it is first asked. `sslmode=require` means TLS with a verified certificate and
//! host name (stricter than libpq, which verifies nothing there); `verify-ca` and `verify-full` mean the
//! same. Without it the connection is plain. Certificates come from the system's store, or from
//! `SSL_CERT_FILE`.
//! # Retries
//! None here: [`PostgresError::kind`] and [`kind_of`] tell callers what to do.
//! # Cancellation
//! Dropping a transaction rolls it back before its connection is used again. A connection that was lost
//! is never handed out twice.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;
use thiserror::Error;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::PostgresSettings;
use crate::error::ErrorKind;

/// Where the DSN says nothing else.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Opening a connection, name lookup and TLS included; likewise waiting for a free one.
const POOL_TIMEOUT: Duration = Duration::from_secs(30);
/// No statement of ours is honest work for longer; migrations lift it for themselves.
const STATEMENT_TIMEOUT: Duration = Duration::from_mins(5);
/// A frozen process must not hold its locks for ever.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_mins(2);
/// A peer that vanished without a word is noticed after about a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// A pool for one server. `role` names the part of the program that uses it: it shows as
/// `sluice/<role>` in `pg_stat_activity`.
pub fn pool(settings: &PostgresSettings, role: &str) -> Result<Pool, PostgresError> {
    let mut config = parse_dsn(settings)?;
    config.application_name(format!("sluice/{role}"));
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    config
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES);
    config.options(session_options(config.get_options()));
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = if config.get_ssl_mode() == SslMode::Require {
        Manager::from_config(config, MakeRustlsConnect::new(tls_config()?), manager_config)
    } else {
        config.ssl_mode(SslMode::Disable);
        Manager::from_config(config, NoTls, manager_config)
    };
    Ok(Pool::builder(manager)
        .max_size(settings.pool_size_max.max(1))
        .runtime(Runtime::Tokio1)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(POOL_TIMEOUT))
        .recycle_timeout(Some(POOL_TIMEOUT))
        .build()
        .expect("a pool with timeouts needs a runtime, and it is given"))
}

/// A connection of the pool, opened if need be.
pub async fn get(pool: &Pool) -> Result<Object, PostgresError> {
    pool.get().await.map_err(|error| match error {
        PoolError::Timeout(TimeoutType::Wait) => PostgresError::PoolExhausted,
        PoolError::Timeout(_) => PostgresError::ConnectTimeout,
        PoolError::Backend(source) => PostgresError::Connect { advice: advice(&source), source },
        PoolError::Closed | PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => PostgresError::PoolClosed,
    })
}

/// Asks the server for an answer.
pub async fn ping(pool: &Pool) -> Result<(), PostgresError> {
    get(pool).await?.simple_query("SELECT 1").await.map_err(PostgresError::Ping)?;
    Ok(())
}

/// `user@host:port/database`, for messages: everything of the DSN but its secrets.
pub fn describe(settings: &PostgresSettings) -> Result<String, PostgresError> {
    let config = parse_dsn(settings)?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => config.get_hostaddrs().first().map_or_else(|| "localhost".to_owned(), ToString::to_string),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or("?");
    Ok(format!("{user}@{host}:{port}/{}", config.get_dbname().unwrap_or(user)))
}

#[derive(Debug, Error)]
pub enum PostgresError {
    #[error("the connection string is not valid: expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    InvalidDsn(#[source] tokio_postgres::Error),
    #[error("sslmode=require, but the system has no certificates: install ca-certificates or set SSL_CERT_FILE")]
    NoCertificates,
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("could not connect to PostgreSQL{}", advice.map(|text| format!(": {text}")).unwrap_or_default())]
    Connect { advice: Option<&'static str>, source: tokio_postgres::Error },
    #[error("PostgreSQL did not let us in within {} s", POOL_TIMEOUT.as_secs())]
    ConnectTimeout,
    #[error("no connection became free within {} s: raise pool_size_max, or look what holds them", POOL_TIMEOUT.as_secs())]
    PoolExhausted,
    #[error("the connection pool is closed")]
    PoolClosed,
    #[error("PostgreSQL did not answer")]
    Ping(#[source] tokio_postgres::Error),
}

impl PostgresError {
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidDsn(_) | Self::NoCertificates | Self::Tls(_) => ErrorKind::Invalid,
            Self::Connect { source, .. } | Self::Ping(source) => kind_of(source),
            Self::ConnectTimeout | Self::PoolExhausted => ErrorKind::Transient,
            Self::PoolClosed => ErrorKind::Halt,
        }
    }
}

/// What to do about an error of the driver, told by its SQLSTATE.
/// Source: PostgreSQL 15 documentation, appendix A, PostgreSQL Error Codes.
pub fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    if is_connection_lost(error) {
        return ErrorKind::Transient;
    }
    let Some(code) = error.code() else {
        return if tls_error(error).is_some() { ErrorKind::Invalid } else { ErrorKind::Halt };
    };
    if TRANSIENT.contains(code) || code.code().starts_with("53") || code.code().starts_with("28") {
        ErrorKind::Transient
    } else if INVALID.contains(code) {
        ErrorKind::Invalid
    } else {
        ErrorKind::Halt
    }
}

/// Class 53 (insufficient resources: connections, memory, disk) besides, and class 28 and missing rights: what runs
/// waits, loudly, until somebody mends them, and loses nothing. `doctor` and start-up show them at once.
const TRANSIENT: &[SqlState] = &[
    SqlState::T_R_SERIALIZATION_FAILURE,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::LOCK_NOT_AVAILABLE,
    SqlState::QUERY_CANCELED,
    SqlState::IO_ERROR,
    // the server became a standby: a failover is under way
    SqlState::READ_ONLY_SQL_TRANSACTION,
    SqlState::INSUFFICIENT_PRIVILEGE,
];

const INVALID: &[SqlState] = &[
    SqlState::INVALID_CATALOG_NAME,
    SqlState::INVALID_SCHEMA_NAME,
    SqlState::UNDEFINED_TABLE,
    SqlState::UNDEFINED_COLUMN,
];

/// True where the connection is gone, so that nobody knows whether a COMMIT under way took effect.
pub fn is_connection_lost(error: &tokio_postgres::Error) -> bool {
    if let Some(code) = error.code() {
        return code.code().starts_with("08")
            || [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code);
    }
    let io = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>);
    (io && tls_error(error).is_none()) || error.is_closed()
}

/// What a person can do about it, where that is known.
fn advice(error: &tokio_postgres::Error) -> Option<&'static str> {
    if tls_error(error).is_some() {
        return Some("the server's certificate was not accepted: set SSL_CERT_FILE to its authority");
    }
    let code = error.code()?;
    if *code == SqlState::INVALID_PASSWORD {
        Some("correct the user or password in the DSN")
    } else if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
        Some("the server refuses this user from here: check the user, pg_hba.conf, or add sslmode=require to the DSN")
    } else if *code == SqlState::INVALID_CATALOG_NAME {
        Some("create the database with `createdb`, or correct its name in the DSN")
    } else if *code == SqlState::TOO_MANY_CONNECTIONS {
        Some("raise max_connections of the server, or lower pool_size_max")
    } else {
        None
    }
}

fn tls_error(error: &tokio_postgres::Error) -> Option<&rustls::Error> {
    let io = std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?;
    io.get_ref()?.downcast_ref()
}

fn parse_dsn(settings: &PostgresSettings) -> Result<Config, PostgresError> {
    // The driver knows neither spelling; ours of `require` verifies as `verify-full` does.
    let dsn = settings
        .dsn
        .expose_secret()
        .replace("sslmode=verify-full", "sslmode=require")
        .replace("sslmode=verify-ca", "sslmode=require");
    dsn.parse().map_err(PostgresError::InvalidDsn)
}

/// The DSN's own options come last, so that they win.
fn session_options(from_dsn: Option<&str>) -> String {
    let mut options = format!(
        "-c statement_timeout={} -c idle_in_transaction_session_timeout={} -c timezone=UTC",
        STATEMENT_TIMEOUT.as_millis(),
        IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
    );
    if let Some(own) = from_dsn {
        options.push(' ');
        options.push_str(own);
    }
    options
}

fn tls_config() -> Result<ClientConfig, PostgresError> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        return Err(PostgresError::NoCertificates);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(PostgresError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dsn: &str) -> PostgresSettings {
        PostgresSettings { dsn: dsn.to_owned().into(), pool_size_max: 2 }
    }

    #[test]
    fn a_description_holds_no_password() {
        let text = describe(&settings("postgres://ann:secret@db.example:6543/lake")).expect("valid");
        assert_eq!(text, "ann@db.example:6543/lake");
    }

    #[test]
    fn every_sslmode_of_libpq_that_verifies_means_tls() {
        for mode in ["require", "verify-ca", "verify-full"] {
            let config = parse_dsn(&settings(&format!("host=h user=u sslmode={mode}"))).expect("valid");
            assert_eq!(config.get_ssl_mode(), SslMode::Require, "{mode}");
        }
    }

    #[test]
    fn a_broken_dsn_is_invalid_and_its_message_keeps_the_secret() {
        let error = pool(&settings("postgres://ann:secret@host:notaport/db"), "test").expect_err("no port");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(!crate::error::chain(&error).contains("secret"));
    }

    #[test]
    fn options_of_the_dsn_come_last() {
        assert!(session_options(Some("-c statement_timeout=5")).ends_with("timezone=UTC -c statement_timeout=5"));
    }

    #[tokio::test]
    async fn a_refused_connection_is_transient() {
        // Port 1 (tcpmux) of loopback: nothing listens there.
        let pool = pool(&settings("postgres://ann@127.0.0.1:1/db"), "test").expect("valid");
        let error = ping(&pool).await.expect_err("nobody listens");
        assert_eq!(error.kind(), ErrorKind::Transient);
    }
}
