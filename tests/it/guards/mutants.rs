//! `make mutants`: takes each guard away in turn and expects that a test notices.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};

/// A mutant that makes a test hang is noticed too.
const DEADLINE: Duration = Duration::from_secs(240);

/// Guards that are taken away together, and the tests of which at least one must fail then. Of a pair each alone
/// is enough: the tests pass where the other one is missing.
const MUTANTS: &[(&str, &[&str])] = &[
    ("fence", &["guards::an_older_owner_is_refused_even_where_nobody_has_moved_the_position"]),
    ("swap", &["guards::a_commit_that_does_not_begin_at_the_position_is_refused_whatever_it_replaces"]),
    ("exclusion", &["guards::the_catalog_refuses_a_second_live_micro_batch_over_an_offset"]),
    ("fence,exclusion", &["guards::a_zombie_over_offsets_that_are_read_again_doubles_none"]),
    ("swap,exclusion", &["guards::an_owner_that_covers_offsets_again_doubles_none"]),
    ("rebuild_windows", &["windows::a_key_passes_once_whoever_reads_it_and_a_replay_passes_the_same_rows"]),
    ("whole", &["guards::a_micro_batch_cut_inside_the_one_it_replaces_is_refused"]),
    ("claim", &["guards::an_object_version_that_another_micro_batch_holds_is_not_consumed_again"]),
    ("books", &["guards::ledgers_that_do_not_add_up_are_refused_before_the_catalog_is_asked"]),
    ("trigger", &["guards::the_catalog_refuses_at_commit_what_does_not_add_up"]),
    ("books,trigger", &["guards::books_that_do_not_balance_never_become_true"]),
    ("tag", &["guards::an_offset_without_our_own_tag_is_an_operators_order"]),
    ("acknowledge", &["replay::guards::an_order_is_acknowledged_before_anything_is_read_again"]),
    ("publish_before_hide", &["guards::a_replaced_file_stays_until_what_replaces_it_is_published"]),
    (
        "still_live",
        &[
            "loading::guards::a_micro_batch_that_died_before_its_load_writes_nothing",
            "loading::a_micro_batch_that_is_not_live_writes_nothing",
        ],
    ),
    ("source_lock", &["loading::guards::rows_of_a_load_under_way_are_seen_by_the_load_that_follows"]),
    (
        "order",
        &[
            "loading::guards::an_older_row_that_comes_later_changes_nothing",
            "loading::the_newer_fact_wins_in_any_order_of_arrival",
            "loading::the_newer_member_wins_in_any_order_of_arrival",
        ],
    ),
    (
        "shadow",
        &[
            "loading::guards::the_row_that_was_outranked_comes_back",
            "loading::replaced::a_member_falls_back_to_its_older_row_and_then_to_an_inferred_one",
        ],
    ),
    ("dimension_lock", &["loading::histories::two_loads_of_one_member_both_stand_in_its_history"]),
    ("rollup_lock", &["loading::rollups::two_loads_that_wait_for_one_cell_both_count"]),
    ("key_map", &["loading::moving::a_row_moves_with_its_time_in_any_order_of_arrival"]),
    (
        "retract",
        &[
            "loading::guards::a_row_that_is_not_made_again_goes",
            "loading::replaced::losers_of_replaced_micro_batches_leave_the_shadow_too",
        ],
    ),
    ("digest", &["loading::replaced::a_row_made_differently_is_replaced_and_may_lose_its_place"]),
    ("digest_count", &["loading::replaced::a_row_that_went_missing_comes_back_with_a_replay_that_makes_the_same"]),
    (
        "one_by_one",
        &[
            "loading::joined::nothing_is_joined_with_a_micro_batch_that_needs_more_than_its_rows",
            "loading::bulk::masked_rows_stay_out_of_a_day_that_comes_whole",
        ],
    ),
    ("held_after_all", &["loading::keys_that_are_held_after_loads_that_met_none_are_compared_all_the_same"]),
    ("members_stand", &["loading::together::members_of_a_warehouse_that_was_restored_are_looked_up_anew"]),
    ("days_lock", &["loading::bulk::a_day_that_is_being_made_whole_is_made_by_nobody_else"]),
    ("whole_days_lock", &["loading::bulk::a_rollup_is_not_made_while_a_day_is_being_made_whole"]),
    ("awaited", &["loading::bulk::a_day_of_which_more_rows_wait_becomes_a_hot_partition_and_takes_them"]),
];

/// What a run of tests says, or `None` where it did not end in time.
fn run(without: &str, tests: &[&str]) -> Option<String> {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--test-threads=4"])
        .args(tests)
        .env("SLUICE_WITHOUT_GUARD", without)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("this test runs");
    let mut out = child.stdout.take().expect("piped");
    let reader = std::thread::spawn(move || {
        let mut said = String::new();
        let _ = out.read_to_string(&mut said);
        said
    });
    let deadline = Instant::now() + DEADLINE;
    while child.try_wait().expect("our own child").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    reader.join().ok()
}

/// Of the tests asked for, those with this result.
fn with_result<'a>(said: &str, tests: &[&'a str], result: &str) -> Vec<&'a str> {
    tests.iter().copied().filter(|test| said.contains(&format!("test {test} ... {result}"))).collect()
}

#[test]
#[ignore = "for `make mutants`: runs this binary once for each guard"]
fn every_guard_that_is_taken_away_is_noticed() {
    let all: Vec<&str> = MUTANTS.iter().flat_map(|(_, tests)| tests.iter().copied()).collect();
    let said = run("", &all).expect("the tests end");
    assert_eq!(with_result(&said, &all, "ok"), all, "they pass where every guard stands: {said}");

    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED).set_header(["without", "test that noticed", "seconds"]);
    let mut survivors = Vec::new();
    for (guards, tests) in MUTANTS {
        let started = Instant::now();
        let noticed = match run(guards, tests) {
            Some(said) => with_result(&said, tests, "FAILED").join("\n"),
            None => "did not end".to_owned(),
        };
        if noticed.is_empty() {
            survivors.push(*guards);
        }
        for alone in guards.split(',').filter(|alone| alone != guards) {
            let said = run(alone, tests).expect("the tests end");
            assert_eq!(with_result(&said, tests, "ok"), *tests, "without {alone} alone, of {guards}: {said}");
        }
        let noticed = if noticed.is_empty() { "NONE: it survives".to_owned() } else { noticed };
        let seconds = format!("{:.1}", started.elapsed().as_secs_f64());
        table.add_row([guards.replace(',', " + "), noticed, seconds]);
    }
    println!("{table}");
    assert!(survivors.is_empty(), "nothing misses {survivors:?}");
}

#[test]
fn every_guard_has_its_attack() {
    use sluice::telemetry::guards::{IN_THE_CATALOG, NAMES};
    for guard in NAMES.iter().chain(IN_THE_CATALOG) {
        assert!(MUTANTS.iter().any(|(name, _)| name == guard), "no attack on {guard}");
    }
}
