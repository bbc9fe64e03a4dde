//! `sluice run`

use tokio::signal::unix::{SignalKind, signal};

use super::{EXIT_CONFIG, EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, SettingsArgs};
use crate::config::Need;
use crate::error::{ErrorKind, chain};
use crate::pipeline::{self, Role, RunError, StartError};
use crate::telemetry::{self, Health};

#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// What this process does; all of them by default
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    pub role: Vec<Role>,
}

/// Runs until SIGTERM or Ctrl-C, then drains. Exit code 1 where a server could not be reached by the deadline,
/// a role failed, or the drain did not end in time; 3 where the schema does not fit.
pub async fn run(settings: &SettingsArgs, args: &RunArgs) -> anyhow::Result<u8> {
    let (settings, connectors) = settings.load_project(Need::ALL)?;
    let roles = if args.role.is_empty() { Role::ALL.to_vec() } else { args.role.clone() };
    if roles.contains(&Role::Transform) {
        connectors.require_keys()?;
    }
    telemetry::init_logs(settings.telemetry.log_format);
    #[cfg(feature = "faults")]
    telemetry::fail_points::arm_from_environment();
    let health = Health::default();
    let address = telemetry::serve(settings.telemetry.listen, health.clone()).await.map_err(|error| {
        anyhow::anyhow!("cannot listen on {} (telemetry.listen): {error}", settings.telemetry.listen)
    })?;
    tracing::info!(component = "run", %address, ?roles, version = env!("CARGO_PKG_VERSION"), "starting");
    let mut terminate = signal(SignalKind::terminate())?;
    let started = tokio::select! {
        started = pipeline::run(&settings, &connectors, &roles, &health) => started,
        _ = terminate.recv() => return Ok(EXIT_DONE),
        _ = tokio::signal::ctrl_c() => return Ok(EXIT_DONE),
    };
    let mut running = match started {
        Ok(running) => running,
        Err(error) => {
            let code = match &error {
                RunError::Start(StartError::Schema(_)) => EXIT_REFUSED,
                error if error.kind() == ErrorKind::Invalid => EXIT_CONFIG,
                _ => EXIT_FAILED,
            };
            tracing::error!(component = "run", error = %chain(&error), "could not start");
            eprintln!("error: {}", chain(&error));
            return Ok(code);
        }
    };
    let code = tokio::select! {
        error = running.failed() => {
            tracing::error!(component = "run", error = %chain(&error), "a role failed, draining");
            EXIT_FAILED
        }
        _ = terminate.recv() => EXIT_DONE,
        _ = tokio::signal::ctrl_c() => EXIT_DONE,
    };
    tracing::info!(component = "run", "draining");
    if running.drain().await {
        tracing::info!(component = "run", "drained");
        return Ok(code);
    }
    tracing::warn!(component = "run", "the drain deadline passed: what was not committed will be read again");
    Ok(EXIT_FAILED)
}
