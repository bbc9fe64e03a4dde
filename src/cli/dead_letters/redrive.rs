//! `sluice dead-letters redrive`

use std::io::Write;
use std::time::{Duration, Instant};

use deadpool_postgres::Pool;

use super::show::not_found;
use super::{RedriveArgs, printable, who};
use crate::catalog::{self, RedriveStatus, TRIES_MAX};
use crate::cli::{EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, SettingsArgs};
use crate::client::postgres;
use crate::config::{Need, Settings};
use crate::pipeline::Letters;
use crate::types::MicroBatchId;

/// What is to be run again, or the exit code where nothing is.
enum Chosen {
    Batches(Vec<MicroBatchId>),
    Nothing(u8),
}

/// Exit code 3 where corrected bytes were tried too often; with `--wait` 1 where not everything was run again in time.
pub async fn run(settings: &SettingsArgs, args: &RedriveArgs, out: &mut dyn Write) -> anyhow::Result<u8> {
    let needs: &[Need] = if args.ids.is_empty() { &[Need::Catalog] } else { &[Need::Catalog, Need::Lake] };
    let settings = settings.load(needs)?;
    let pool = postgres::pool(&settings.catalog, "dead-letters")?;
    let chosen = if args.ids.is_empty() {
        by_filter(&settings, &pool, args, out).await?
    } else {
        by_id(&settings, &pool, args).await?
    };
    let batches = match chosen {
        Chosen::Batches(batches) => batches,
        Chosen::Nothing(code) => return Ok(code),
    };
    let request = uuid::Uuid::now_v7();
    let new = catalog::request_redrives(&postgres::get(&pool).await?, request, &batches, &who()).await?;
    writeln!(out, "asked for {} to be run again", micro_batches(batches.len()))?;
    let waited_for = batches.len().saturating_sub(new as usize);
    if waited_for > 0 {
        writeln!(out, "{} had been asked for before, or replaced meanwhile", micro_batches(waited_for))?;
    }
    if args.wait == 0 {
        return Ok(EXIT_DONE);
    }
    wait(&pool, &batches, Duration::from_secs(args.wait), out).await
}

fn micro_batches(count: usize) -> String {
    if count == 1 { "1 micro-batch".to_owned() } else { format!("{count} micro-batches") }
}

async fn by_id(settings: &Settings, pool: &Pool, args: &RedriveArgs) -> anyhow::Result<Chosen> {
    let letters = Letters::new(settings, pool.clone());
    let mut batches = Vec::new();
    for id in &args.ids {
        let Some((owner, letter)) = letters.find(*id).await? else { return Ok(Chosen::Nothing(not_found(*id))) };
        let correction = catalog::correction(&postgres::get(pool).await?, owner.partition, letter.place()).await?;
        if let Some(correction) = correction.filter(catalog::Correction::is_exhausted) {
            let fault = printable(correction.fault.as_deref().unwrap_or_default());
            let tries = correction.try_count;
            eprintln!("error: refused: {id} was run again {tries} times with its corrected bytes, in vain: {fault}");
            eprintln!("  help: edit it anew: `sluice dead-letters edit {id}`");
            return Ok(Chosen::Nothing(EXIT_REFUSED));
        }
        if !batches.contains(&owner.batch) {
            batches.push(owner.batch);
        }
    }
    Ok(Chosen::Batches(batches))
}

async fn by_filter(
    settings: &Settings,
    pool: &Pool,
    args: &RedriveArgs,
    out: &mut dyn Write,
) -> anyhow::Result<Chosen> {
    let client = postgres::get(pool).await?;
    let filter = args.filter.filter();
    let found = catalog::letter_batches(&client, &settings.kafka.group, &filter, TRIES_MAX).await?;
    if found.is_empty() {
        writeln!(out, "there are no such dead letters")?;
        return Ok(Chosen::Nothing(EXIT_DONE));
    }
    let (exhausted, chosen): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, is_exhausted)| *is_exhausted);
    if !exhausted.is_empty() {
        let count = micro_batches(exhausted.len());
        eprintln!(
            "refused: {count}, whose dead letters were run again {TRIES_MAX} times with their corrected bytes, in vain: edit them anew"
        );
    }
    if chosen.is_empty() {
        return Ok(Chosen::Nothing(EXIT_REFUSED));
    }
    Ok(Chosen::Batches(chosen.into_iter().map(|(id, _)| id).collect()))
}

async fn wait(pool: &Pool, batches: &[MicroBatchId], at_most: Duration, out: &mut dyn Write) -> anyhow::Result<u8> {
    let deadline = Instant::now() + at_most;
    loop {
        let found = catalog::redrives(&postgres::get(pool).await?, batches).await?;
        let open = found.iter().filter(|status| status.outcome.is_none()).count();
        if open == 0 || Instant::now() >= deadline {
            return finished(&found, open, out);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn finished(found: &[RedriveStatus], open: usize, out: &mut dyn Write) -> anyhow::Result<u8> {
    let is_done = |status: &&RedriveStatus| status.outcome.as_deref() == Some("done");
    writeln!(out, "run again: {}", micro_batches(found.iter().filter(is_done).count()))?;
    for status in found.iter().filter(|status| status.outcome.is_some() && !is_done(status)) {
        let detail = printable(status.detail.as_deref().unwrap_or("no live micro-batch is left in its place"));
        writeln!(out, "{} {}: {detail}", status.outcome.as_deref().unwrap_or_default(), status.micro_batch_id)?;
    }
    if open > 0 {
        writeln!(out, "not yet: {}; is `sluice run` at work, and no replay under way?", micro_batches(open))?;
    }
    Ok(if found.iter().all(|status| is_done(&status)) { EXIT_DONE } else { EXIT_FAILED })
}
