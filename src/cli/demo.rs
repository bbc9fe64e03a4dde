//! stub
use std::io::Write;
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {}
pub async fn run(_a: &DemoArgs, _o: &mut dyn Write) -> anyhow::Result<u8> {
    Ok(0)
}
