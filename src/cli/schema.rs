//! `sluice schema`: the JSON Schemas that make an editor complete and check the YAML files.

use std::io::{self, Write};
use std::path::PathBuf;

use crate::config::SchemaKind;

const EXIT_DONE: u8 = 0;

#[derive(Debug, Clone, clap::Args)]
pub struct SchemaArgs {
    /// Which files' schema to print
    #[arg(value_name = "KIND", default_value = "connector")]
    pub kind: SchemaName,
    /// Write all schemas to this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "kind")]
    pub write: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SchemaName {
    Connector,
    Topic,
    Settings,
}

/// Prints to `out`; returns the exit code.
pub fn run(args: &SchemaArgs, out: &mut dyn Write) -> io::Result<u8> {
    let Some(folder) = &args.write else {
        let kind = match args.kind {
            SchemaName::Connector => SchemaKind::Connector,
            SchemaName::Topic => SchemaKind::Topic,
            SchemaName::Settings => SchemaKind::Settings,
        };
        write!(out, "{}", kind.json())?;
        return Ok(EXIT_DONE);
    };
    std::fs::create_dir_all(folder)?;
    for kind in SchemaKind::ALL {
        let path = folder.join(kind.file_name());
        std::fs::write(&path, kind.json())?;
        writeln!(out, "{}", path.display())?;
    }
    Ok(EXIT_DONE)
}
