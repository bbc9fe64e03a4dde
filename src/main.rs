//! Parse, start, exit code.

mod allocator;

use std::process::ExitCode;

use clap::Parser;
use sluice::cli::{Cli, execute};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: could not start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(execute(cli));
    // what still runs after a drain's deadline loses nothing: it is not committed
    runtime.shutdown_background();
    ExitCode::from(code)
}
