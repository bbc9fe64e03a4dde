//! Worlds in which one fault follows the other, in two processes at once, until everything is settled and verified.

use std::time::Instant;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use sluice_loadtest::verify;

use crate::alone;
use crate::fault::Fault;
use crate::load::Load;
use crate::process::Process;
use crate::report::{WorldReport, table};
use crate::stack::{World, wait_for};

/// Faults of one world, before it is settled and verified.
const FAULTS_PER_WORLD: usize = 34;
const PARTITIONS: i32 = 4;

/// One process and its faults, one after the other; says which of them happened.
async fn lane<'a>(world: &'a World, load: &Load<'_>, seed: u64, faults: &[Fault]) -> (Vec<(Fault, bool)>, Process<'a>) {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut process = Process::start(world).await;
    let mut done = Vec::new();
    for fault in faults {
        let started = Instant::now();
        let happened = fault.inject(&mut process, &mut rng, load).await;
        let word = if happened { "" } else { ": DID NOT HAPPEN" };
        println!("{:5.1} s  {fault}{word}", started.elapsed().as_secs_f64());
        done.push((*fault, happened));
    }
    (done, process)
}

/// Two processes at work, each with half of the faults. May be called again in the same world, with other
/// faults: what wants all processes stopped, such as a reset of the group's offsets, goes in between.
async fn two_lanes<'a>(
    world: &'a World,
    load: &Load<'_>,
    seed: u64,
    faults: &[Fault],
) -> (Vec<(Fault, bool)>, [Process<'a>; 2]) {
    let (one, other) = faults.split_at(faults.len() / 2);
    let ((mut done, one), (others, other)) = tokio::join!(
        lane(world, load, seed.wrapping_add(1 << 32), one),
        lane(world, load, seed.wrapping_add(2 << 32), other)
    );
    done.extend(others);
    (done, [one, other])
}

/// `faults`, in the order that the seed gives them, in a world of their own.
async fn world_of_faults(seed: u64, mut faults: Vec<Fault>) -> WorldReport {
    println!("world of seed {seed}: {} faults", faults.len());
    let started = Instant::now();
    faults.shuffle(&mut StdRng::seed_from_u64(seed));
    let world = World::new(PARTITIONS).await;
    world.without_connector("direct-events");
    world.with_sql();
    world.with_formats();
    let load = Load::new(&world, seed);
    // the second half of the faults falls into a replay of what the first half has left
    let (before, after) = faults.split_at(faults.len() / 2);
    let (mut done, processes) = two_lanes(&world, &load, seed, before).await;
    for process in processes {
        assert_eq!(process.terminate(), Some(0), "SIGTERM drains: {}", world.logs());
    }
    let reset = move_back(&world, seed).await;
    println!("seed {seed}: replay by {reset}");
    let (others, processes) = two_lanes(&world, &load, seed.wrapping_add(1 << 40), after).await;
    done.extend(others);
    let faults = done;
    world.settle();
    for process in processes {
        assert_eq!(process.terminate(), Some(0), "SIGTERM drains: {}", world.logs());
    }
    crate::checker::check(&world.warehouse().await).await;
    let report = WorldReport {
        seed,
        faults,
        objects: load.objects(),
        // by the logs: counters died with their processes
        fenced: world.logs().matches("commit refused: a newer owner exists").count(),
        unbalanced: unbalanced(&world).await,
        verified: verify(&world.endpoints(), &world.ledger()).await.expect("everything can be read"),
        elapsed: started.elapsed(),
    };
    println!("seed {seed}: {} in {} s", report.verified.verdict(), report.elapsed.as_secs());
    if !report.is_clean() {
        println!("{}\n{}", report.verified.display(30), world.logs());
    }
    report
}

/// Moves the group as an operator does, when nobody is in it.
async fn move_back(world: &World, seed: u64) -> &'static str {
    let to = [&["--to-earliest"][..], &["--shift-by", "-7"], &["--by-duration", "PT20S"]][(seed % 3) as usize];
    let mut args =
        vec!["groups", "--group", &world.name, "--topic", &world.notifications, "--reset-offsets", "--execute"];
    args.extend(to);
    wait_for("the group to be empty and moved", || async {
        let output = world.stack.kafka_output(&args);
        output.status.success() && !String::from_utf8_lossy(&output.stdout).contains("Error")
    })
    .await;
    to[0]
}

async fn unbalanced(world: &World) -> i64 {
    let sql = "SELECT count(*) FILTER (WHERE NOT balanced), count(*) FROM catalog.books";
    let row = world.catalog().await.query_one(sql, &[]).await.expect("the catalog answers");
    assert!(row.get::<_, i64>(1) > 0, "nothing was committed");
    row.get(0)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().filter(|value| !value.is_empty()).map(|value| value.parse().expect("a number"))
}

fn assert_clean(worlds: &[WorldReport]) {
    println!("{}", table(worlds));
    let dirty: Vec<u64> = worlds.iter().filter(|world| !world.is_clean()).map(|world| world.seed).collect();
    assert!(dirty.is_empty(), "worlds with findings, by seed: {dirty:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn dying_anywhere_and_broken_commits_and_requests_lose_and_double_nothing() {
    let _alone = alone().await;
    let faults = Fault::quick();
    let wanted = faults.len();
    let world = world_of_faults(number("CHAOS_SEED").unwrap_or(1), faults).await;
    let injected = world.injected();
    assert_clean(&[world]);
    assert!(injected * 10 >= wanted * 9, "only {injected} of {wanted} faults happened");
}

/// Deals every kind in turn, in worlds of some faults each, until as many happened as asked for.
/// `CHAOS_SEED` repeats what was chosen, `CHAOS_WORLD` just the world of that seed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for `make chaos`: takes about 20 minutes on two cores"]
async fn as_many_faults_as_asked_for_lose_and_double_nothing() {
    let _alone = alone().await;
    let wanted = number("CHAOS_ROUNDS").unwrap_or(200) as usize;
    let seed = number("CHAOS_SEED").unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
    println!("CHAOS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let only = number("CHAOS_WORLD");
    let (mut worlds, mut deck) = (Vec::<WorldReport>::new(), Vec::new());
    let count = FAULTS_PER_WORLD.min(wanted);
    for world_seed in seed.. {
        if only.is_some_and(|only| only < world_seed)
            || worlds.iter().map(WorldReport::injected).sum::<usize>() >= wanted
        {
            break;
        }
        if deck.len() < count {
            let mut all = Fault::all();
            all.shuffle(&mut rng);
            deck.splice(0..0, all);
        }
        let faults = deck.split_off(deck.len() - count);
        if only.is_some_and(|only| only != world_seed) {
            continue;
        }
        let world = world_of_faults(world_seed, faults).await;
        assert!(world.injected() > 0, "nothing could be broken");
        worlds.push(world);
        if worlds.iter().any(|world| !world.is_clean()) {
            break;
        }
    }
    assert_clean(&worlds);
}
