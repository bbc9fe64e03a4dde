//! Structured logs on standard error: lowercase fragments, fixed field names, never payloads.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// `SLUICE_LOG` chooses levels as in `info,sluice=debug`; default `info`.
pub fn init(format: Option<LogFormat>) {
    let default = "info,librdkafka=warn,rdkafka=warn,aws_config=warn,refinery_core=warn";
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let terminal = std::io::stderr().is_terminal();
    let format = format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // an error says that somebody has installed a subscriber before: theirs stays
    let _ = match format {
        LogFormat::Text => builder.with_ansi(terminal).with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// For commands with a display of their own: errors only, unless `SLUICE_LOG` asks for more.
pub fn init_quiet() {
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| EnvFilter::new("error"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    // an error says that somebody has installed a subscriber before: theirs stays
    let _ = builder.try_init();
}
