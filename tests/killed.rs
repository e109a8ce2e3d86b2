//! Killed at any moment, a run is continued to where it would have ended, or rolled back to where it began.
//!
//! The moments are the system calls of an undisturbed run (see `trace`). By default some of them are tried, chosen by
//! chance; `PG_STAGING_TEST_ALL=1` tries all, `PG_STAGING_TEST_SEED=<number>` the same ones again.
#![cfg(test)]
#![allow(clippy::disallowed_methods, reason = "these tests start strace")]
#![allow(clippy::print_stdout, reason = "a seed is of use only when it is seen")]

mod held;
mod scene;
mod trace;

use std::panic::AssertUnwindSafe;

use journal::codec;
use journal::event::{Envelope, Event, Hash};
use rustix::process::Signal;

use crate::chance::{Chance, everything};
use crate::run_file;
use crate::stage::{Asked, Conduct, Plan, Program, Serving, Site, SiteOptions, wait_until};
use held::{
    Gate, Place, ScriptLock, wait_until_scripts_ended, wait_until_scripts_wait, wait_until_waiting, waiting,
};
use scene::{LIMIT, Scene, Shown, World};
pub use trace::can_trace;
use trace::{Point, Watch, delayed, kill_tracee, record, run_up_to, summary};

const EARLIER: &str = "20261120";
const DATE: &str = "20261121";

/// A restore with everything in it, by way of tmpdir, on a site whose alias leads to an earlier copy.
fn restore() -> Scene<'static> {
    restore_with(|site| site.set("fast", "False").unwrap())
}

/// The same straight from the server.
fn restore_by_parts() -> Scene<'static> {
    let mut scene = restore_with(|_| ());
    scene.by_parts = true;
    scene
}

fn restore_with(settings: impl FnOnce(&mut Site<'_>)) -> Scene<'static> {
    let options = SiteOptions {
        dates: vec!["2026-11-20".into(), "2026-11-21".into()],
        serving: Serving::Rude,
        ..SiteOptions::default()
    };
    Scene::new(&options, "restore", DATE, |site| {
        settings(site);
        done(site, &["createdb", &site.section(), EARLIER]);
        done(site, &["switch", &site.section(), EARLIER]);
        configure(site);
    })
}

fn done(site: &Site<'_>, arguments: &[&str]) {
    let outcome = site.run(arguments).unwrap();
    assert_eq!(outcome.code, 0, "{outcome}");
}

/// Rules, and SQL files that show when they have run more than once, or not at all. VACUUM in a file means that it cannot
/// run in one transaction.
fn configure(site: &mut Site<'_>) {
    site.set("schemas_nodata", "londiste").unwrap();
    site.set("search_path", "public, sales").unwrap();
    for place in [Place::Restore, Place::Whole, Place::Loose] {
        place.build(site);
    }
    let note =
        |what: &str| format!("INSERT INTO staging.log SELECT count(*) + 1, '{what}' FROM staging.log;\n");
    let log = "CREATE SCHEMA staging;\nCREATE TABLE staging.log (number bigint, what text);\n";
    let trigger = format!(
        "CREATE FUNCTION staging.wait() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {} END $$;\n\
         CREATE EVENT TRIGGER wait ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION staging.wait();\n",
        Place::Restore.sql(site)
    );
    let untrigger = "DROP EVENT TRIGGER wait;\nDROP FUNCTION staging.wait;\n";
    let mask = "UPDATE country SET name = name || ' (staging)';\n";
    let files = [
        ("pre", "10_log.sql", format!("{log}{}", note("pre 10"))),
        ("pre", "20_trigger.sql", format!("{trigger}{}VACUUM staging.log;\n", note("pre 20"))),
        ("pre", "30_log.sql", note("pre 30")),
        ("post", "10_mask.sql", format!("{untrigger}{mask}{}{}", note("post 10"), Place::Whole.sql(site))),
        ("post", "20_log.sql", format!("{}{}VACUUM staging.log;\n", note("post 20"), Place::Loose.sql(site))),
        ("post", "30_log.sql", note("post 30")),
    ];
    for (phase, name, sql) in files {
        site.add_sql(phase, name, &sql).unwrap();
    }
}

/// The world after the command ran undisturbed, and all moments in it.
fn undisturbed(scene: &Scene<'_>, watch: Watch) -> (World, Vec<Point>) {
    let (outcome, points) = record(&scene.site, watch, &scene.words());
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_ne!(scene.now(), scene.before);
    let run = scene.run().unwrap();
    assert_eq!(run.status, "succeeded");
    assert_eq!(scene.leftovers(&run.id), Vec::<String>::new());
    println!("{} points: {}", points.len(), summary(&points));
    (scene.now(), points)
}

/// Kills the command at that point.
fn kill(scene: &Scene<'_>, point: &Point) -> bool {
    scene.reset();
    run_up_to(&scene.site, &scene.words(), point).code == 137
}

/// What was killed, and continued, must end as if it had not been killed.
fn ends_as_undisturbed(scene: &Scene<'_>, after: &World, when: &str) {
    let Some(run) = scene.run() else {
        scene.before.is_now(scene, &format!("{when}: there is no run"));
        return;
    };
    let asked = scene.downloads().len();
    let missing = missing_bytes(scene, &run);
    if run.status == "succeeded" {
        // All was done but for what readers of the journal do themselves.
        assert_eq!(scene.pg_staging(&["continue", &run.id]).code, 1, "{when}");
    } else {
        assert_eq!(run.status, "interrupted", "{when}");
        let continued = scene.pg_staging(&["continue", &run.id]);
        assert_eq!(continued.code, 0, "{when}: {continued}");
    }
    let status = scene.run().unwrap().status;
    assert_eq!(status, "succeeded", "{when}");
    after.is_now(scene, when);
    assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
    let ranges = scene.downloads().split_off(asked).into_iter();
    let ranges: Vec<String> =
        ranges.map(|request| request.header("range").unwrap_or("all").to_owned()).collect();
    if !scene.by_parts {
        assert_eq!(ranges, missing, "{when}: what was fetched again");
    }
}

/// What of the dump has to be asked for when the run is continued: nothing, all, or from the first byte that is not here.
fn missing_bytes(scene: &Scene<'_>, run: &Shown) -> Vec<String> {
    let total = std::fs::metadata(scene.site.dump()).unwrap().len();
    let is_done = scene.step_status(run, "fetch") == "succeeded";
    match scene.fetched() {
        _ if is_done || scene.site.rude().is_err() => Vec::new(),
        0 => vec!["all".to_owned()],
        whole if whole == total => Vec::new(),
        part => vec![format!("bytes={part}-")],
    }
}

/// What was killed, and rolled back, must be as if it had never run.
fn is_as_before(scene: &Scene<'_>, when: &str) {
    let Some(run) = scene.run() else {
        scene.before.is_now(scene, &format!("{when}: there is no run"));
        return;
    };
    let rolled_back = if run.status == "succeeded" {
        scene.pg_staging(&["--yes", "rollback", &run.id])
    } else {
        assert_eq!(run.status, "interrupted", "{when}");
        scene.pg_staging(&["rollback", &run.id])
    };
    assert_eq!(rolled_back.code, 0, "{when}: {rolled_back}");
    assert_eq!(scene.run().unwrap().status, "rolled_back", "{when}");
    scene.before.is_now(scene, when);
    assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
}

/// Tries all points, also after one of them has failed, and then names those that did.
fn at_each(points: &[Point], mut attempt: impl FnMut(&Point)) {
    let mut failed = Vec::new();
    for point in points {
        if std::panic::catch_unwind(AssertUnwindSafe(|| attempt(point))).is_err() {
            failed.push(point.to_string());
        }
    }
    assert!(failed.is_empty(), "{} of {} points failed: {}", failed.len(), points.len(), failed.join(", "));
}

#[test]
fn a_restore_killed_anywhere_and_continued_ends_as_if_it_had_not_been_killed() {
    if !can_trace() {
        return;
    }
    let mut chance = Chance::of("restore, continue");
    let scene = restore();
    let (after, points) = undisturbed(&scene, Watch::FirstThread);
    at_each(&chance.some_of(points, 10), |point| {
        let killed = kill(&scene, point);
        ends_as_undisturbed(&scene, &after, &format!("at {point} (killed: {killed})"));
    });
}

#[test]
fn a_restore_killed_anywhere_and_rolled_back_is_as_if_it_had_never_run() {
    if !can_trace() {
        return;
    }
    let mut chance = Chance::of("restore, rollback");
    let scene = restore();
    let (_, points) = undisturbed(&scene, Watch::FirstThread);
    at_each(&chance.some_of(points, 10), |point| {
        let killed = kill(&scene, point);
        is_as_before(&scene, &format!("at {point} (killed: {killed})"));
    });
}

/// What is done with a run that was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Continue,
    RollBack,
}

const BOTH: [Then; 2] = [Then::Continue, Then::RollBack];

/// The command run to its end, with nothing in its way.
fn finished(scene: &Scene<'_>) -> World {
    let outcome = scene.pg_staging(&scene.words());
    assert_eq!(outcome.code, 0, "{outcome}");
    scene.now()
}

#[test]
fn a_restore_killed_while_sql_is_at_work_leaves_no_session_behind_and_does_nothing_twice() {
    let scene = restore();
    let after = finished(&scene);
    for (place, then) in [Place::Restore, Place::Whole, Place::Loose]
        .into_iter()
        .flat_map(|place| BOTH.map(|then| (place, then)))
    {
        let when = format!("{place:?}, {then:?}");
        scene.reset();
        let gate = Gate::shut(&scene.site, place);
        let program = scene.site.spawn(&scene.words()).unwrap();
        wait_until_waiting(&scene.site, &scene.copy);
        program.kill().unwrap();
        let orphans = waiting(&scene.site, &scene.copy);
        match then {
            Then::RollBack => {
                is_as_before(&scene, &when);
                gate.open();
            }
            Then::Continue => {
                let continued = continued_past(&scene, &orphans);
                gate.open();
                is_continued(&scene, continued, &after, &when);
            }
        }
    }
}

/// Continues the run that was killed, up to where the sessions of the killed one are ended and their work is begun again.
fn continued_past(scene: &Scene<'_>, orphans: &[String]) -> Program {
    let continued = scene.spawn(&["continue", &scene.run().unwrap().id]);
    wait_until("the orphan to be ended, and its work to be begun again", LIMIT, || {
        let now = waiting(&scene.site, &scene.copy);
        !now.is_empty() && !now.iter().any(|pid| orphans.contains(pid))
    })
    .unwrap();
    continued
}

fn is_continued(scene: &Scene<'_>, continued: Program, after: &World, when: &str) {
    let outcome = continued.wait().unwrap();
    assert_eq!(outcome.code, 0, "{when}: {outcome}");
    after.is_now(scene, when);
    assert_eq!(scene.leftovers(&scene.run().unwrap().id), Vec::<String>::new(), "{when}");
}

#[test]
fn a_restore_part_by_part_killed_twice_while_an_index_is_built_goes_on_or_is_taken_back_though_sessions_are_left()
 {
    let scene = restore_by_parts();
    let after = finished(&scene);
    for (kills, then) in [1, 2].into_iter().flat_map(|kills| BOTH.map(|then| (kills, then))) {
        let when = format!("{kills} kills, {then:?}");
        scene.reset();
        let gate = Gate::shut(&scene.site, Place::Restore);
        let mut program = scene.site.spawn(&scene.words()).unwrap();
        wait_until_waiting(&scene.site, &scene.copy);
        let mut orphans = waiting(&scene.site, &scene.copy);
        for _ in 1..kills {
            program.kill().unwrap();
            program = continued_past(&scene, &orphans);
            orphans = waiting(&scene.site, &scene.copy);
        }
        program.kill().unwrap();
        match then {
            // The session that was left still builds its index.
            Then::RollBack => {
                assert_eq!(waiting(&scene.site, &scene.copy), orphans, "{when}");
                is_as_before(&scene, &when);
                gate.open();
            }
            Then::Continue => {
                let continued = continued_past(&scene, &orphans);
                gate.open();
                is_continued(&scene, continued, &after, &when);
            }
        }
    }
}

#[test]
fn a_restore_stopped_by_a_signal_says_so_and_goes_on_or_back() {
    let scene = restore();
    let after = finished(&scene);
    let signals: [(&[Signal], i32); 3] =
        [(&[Signal::INT], 130), (&[Signal::INT, Signal::INT], 130), (&[Signal::TERM], 143)];
    for ((signals, code), then) in signals.into_iter().flat_map(|signals| BOTH.map(|then| (signals, then))) {
        let when = format!("{signals:?}, {then:?}");
        scene.reset();
        let gate = Gate::shut(&scene.site, Place::Whole);
        let mut program = scene.site.spawn(&scene.words()).unwrap();
        wait_until_waiting(&scene.site, &scene.copy);
        for signal in signals {
            program.signal(*signal).unwrap();
            if *signal == Signal::INT {
                program.wait_until_it_says("stopping at the next safe point").unwrap();
            }
        }
        let outcome = if signals == [Signal::INT] {
            gate.open();
            program.wait().unwrap()
        } else {
            let outcome = program.wait().unwrap();
            gate.open();
            outcome
        };
        assert_eq!(outcome.code, code, "{when}: {outcome}");
        let run = scene.run().unwrap();
        assert_eq!(run.status, "stopped", "{when}");
        let word = if then == Then::Continue { "continue" } else { "rollback" };
        let outcome = scene.pg_staging(&[word, &run.id]);
        assert_eq!(outcome.code, 0, "{when}: {outcome}");
        let wanted = if then == Then::Continue { &after } else { &scene.before };
        wanted.is_now(&scene, &when);
        assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
    }
}

#[test]
fn a_download_killed_half_way_is_gone_on_with_from_the_byte_that_was_there() {
    let scene = restore();
    let after = finished(&scene);
    let total = std::fs::metadata(scene.site.dump()).unwrap().len();
    for (bytes, then) in
        [1, total / 2, total - 1].into_iter().flat_map(|bytes| BOTH.map(|then| (bytes, then)))
    {
        scene.reset();
        let rude = scene.site.rude().unwrap();
        rude.plan(&scene.dump_path(), Plan::new(Conduct::StallAfter(bytes)).on(Asked::Get));
        let program = scene.site.spawn(&scene.words()).unwrap();
        rude.wait_until_stalled(&scene.dump_path(), LIMIT).unwrap();
        wait_until("the bytes to be written", LIMIT, || scene.fetched() == bytes).unwrap();
        program.kill().unwrap();
        rude.behave(&scene.dump_path());
        let when = format!("{bytes} bytes, {then:?}");
        match then {
            Then::Continue => ends_as_undisturbed(&scene, &after, &when),
            Then::RollBack => is_as_before(&scene, &when),
        }
    }
}

/// Makes what the run last recorded of its download something that was recorded before the machine was started again.
fn started_again(scene: &Scene<'_>, id: &str) {
    let mut events: Vec<Envelope> =
        run_file::events(&scene.site, id).iter().map(|bytes| codec::decode(bytes).unwrap()).collect();
    let is_durable = |envelope: &&mut Envelope| matches!(&envelope.event, Event::PartDone { part, .. } if part == "durable");
    let durable = events.iter_mut().rev().find(is_durable).unwrap();
    let Event::PartDone { detail, .. } = &mut durable.event else { unreachable!() };
    detail.insert("boot_id".to_owned(), "00000000-0000-4000-8000-000000000000".into());
    let mut encoded: Vec<Vec<u8>> = Vec::new();
    for mut envelope in events {
        envelope.prev = encoded.last().map_or(Hash::ZERO, |bytes| Hash::of(bytes));
        encoded.push(codec::encode(&envelope).unwrap());
    }
    run_file::write(&scene.site, id, &encoded);
}

#[test]
fn after_a_power_loss_of_a_download_only_what_was_recorded_as_synced_is_believed() {
    let scene = restore();
    let after = finished(&scene);
    let third = std::fs::metadata(scene.site.dump()).unwrap().len() / 3;
    scene.reset();
    let rude = scene.site.rude().unwrap();
    let stalled = |program: Program, bytes: u64| {
        rude.wait_until_stalled(&scene.dump_path(), LIMIT).unwrap();
        wait_until("the bytes to be written", LIMIT, || scene.fetched() == bytes).unwrap();
        program.kill().unwrap();
        rude.behave(&scene.dump_path());
    };
    let stalls = || Plan::new(Conduct::StallAfter(third)).on(Asked::Get);
    rude.plan(&scene.dump_path(), stalls());
    stalled(scene.site.spawn(&scene.words()).unwrap(), third);
    let id = scene.run().unwrap().id;
    // What is there now was synced before the second attempt went on; what that one gets was not.
    rude.plan(&scene.dump_path(), stalls());
    stalled(scene.spawn(&["continue", &id]), 2 * third);
    started_again(&scene, &id);
    let part = scene.part();
    let file = std::fs::File::options().write(true).open(&part).unwrap();
    file.set_len(third).unwrap();
    file.set_len(2 * third).unwrap();
    let continued = scene.pg_staging(&["continue", &id]);
    assert_eq!(continued.code, 0, "{continued}");
    after.is_now(&scene, "after a power loss");
    assert_eq!(scene.leftovers(&id), Vec::<String>::new());
    let last = scene.downloads().pop().unwrap();
    assert_eq!(last.header("range"), Some(format!("bytes={third}-").as_str()));
}

/// Kills the program while the client script waits for its lock, and lets go of the lock only when somebody else waits
/// for it as well.
fn killed_at_the_lock(scene: &Scene<'_>, program: Program, lock: ScriptLock, after: &World, then: Then) {
    let when = format!("{:?} killed at the lock, {then:?}", scene.command);
    wait_until_scripts_wait(&scene.site, 1);
    program.kill().unwrap();
    let run = scene.run().unwrap();
    assert_eq!(run.status, "interrupted", "{when}");
    let word = if then == Then::Continue { "continue" } else { "rollback" };
    let recovered = scene.spawn(&[word, &run.id]);
    wait_until_scripts_wait(&scene.site, 2);
    drop(lock);
    let outcome = recovered.wait().unwrap();
    assert_eq!(outcome.code, 0, "{when}: {outcome}");
    wait_until_scripts_ended(&scene.site);
    let wanted = if then == Then::Continue { after } else { &scene.before };
    wanted.is_now(scene, &when);
    assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
}

#[test]
fn a_change_of_pgbouncers_file_that_was_under_way_comes_before_what_follows_or_not_at_all() {
    let scene = restore();
    let after = finished(&scene);
    for then in BOTH {
        scene.reset();
        let lock = ScriptLock::take(&scene.site);
        let program = scene.site.spawn(&scene.words()).unwrap();
        killed_at_the_lock(&scene, program, lock, &after, then);
    }
    for then in BOTH {
        scene.reset();
        let gate = Gate::shut(&scene.site, Place::Loose);
        let program = scene.site.spawn(&scene.words()).unwrap();
        wait_until_waiting(&scene.site, &scene.copy);
        let lock = ScriptLock::take(&scene.site);
        gate.open();
        killed_at_the_lock(&scene, program, lock, &after, then);
    }
}

/// A copy to come, or one that is there and not active; the alias leads to an earlier one.
fn copies(command: &str, over_ssh: bool) -> Scene<'static> {
    let options = SiteOptions { over_ssh, ..SiteOptions::default() };
    Scene::new(&options, command, DATE, |site| {
        done(site, &["createdb", &site.section(), EARLIER]);
        done(site, &["switch", &site.section(), EARLIER]);
        if command != "createdb" {
            done(site, &["createdb", &site.section(), DATE]);
        }
    })
}

#[test]
fn the_same_on_a_far_host_whose_script_goes_on_when_we_are_killed() {
    for command in ["createdb", "switch"] {
        let scene = copies(command, true);
        let after = finished(&scene);
        for then in BOTH {
            scene.reset();
            let lock = ScriptLock::take(&scene.site);
            let program = scene.site.spawn(&scene.words()).unwrap();
            killed_at_the_lock(&scene, program, lock, &after, then);
        }
    }
}

#[test]
fn what_a_killed_script_had_started_is_waited_for() {
    if !can_trace() {
        return;
    }
    for command in ["createdb", "switch", "drop"] {
        let scene = copies(command, false);
        let after = finished(&scene);
        for then in BOTH {
            let when = format!("{command} killed before the new file took its place, {then:?}");
            scene.reset();
            let mut command = delayed(&scene.site, &scene.words(), "/usr/bin/mv");
            let strace = scene.site.spawn_command(&mut command).unwrap();
            // The old file gets its second name right before the new one takes its place.
            wait_until("the script to replace the file", LIMIT, || !scene.versions().is_empty()).unwrap();
            kill_tracee(&strace);
            let run = scene.run().unwrap();
            let word = if then == Then::Continue { "continue" } else { "rollback" };
            let outcome = scene.pg_staging(&[word, &run.id]);
            assert_eq!(outcome.code, 0, "{when}: {outcome}");
            strace.wait().unwrap();
            let wanted = if then == Then::Continue { &after } else { &scene.before };
            wanted.is_now(&scene, &when);
            assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
        }
    }
}

/// Both ways from each of some points of the command.
fn both_ways(scene: &Scene<'_>, watch: Watch, count: usize, back: impl Fn(&Scene<'_>, &World, &str)) {
    let mut chance = Chance::of(&scene.command[0]);
    let (after, points) = undisturbed(scene, watch);
    at_each(&chance.some_of(points.clone(), count), |point| {
        let killed = kill(scene, point);
        ends_as_undisturbed(scene, &after, &format!("{} at {point} (killed: {killed})", scene.command[0]));
    });
    at_each(&chance.some_of(points, count), |point| {
        let killed = kill(scene, point);
        back(scene, &after, &format!("{} at {point} (killed: {killed})", scene.command[0]));
    });
}

#[test]
fn createdb_and_switch_killed_anywhere_are_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    for command in ["createdb", "switch"] {
        both_ways(&copies(command, false), Watch::FirstThread, 4, |scene, _, when| is_as_before(scene, when));
    }
}

#[test]
fn a_run_killed_while_the_journals_database_is_written_is_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    both_ways(&copies("switch", false), Watch::Database, 4, |scene, _, when| is_as_before(scene, when));
}

#[test]
fn createdb_and_switch_on_a_far_host_killed_anywhere_are_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    for command in ["createdb", "switch"] {
        both_ways(&copies(command, true), Watch::FirstThread, 2, |scene, _, when| is_as_before(scene, when));
    }
}

#[test]
fn a_drop_killed_anywhere_is_continued_and_rolled_back_while_the_database_is_there() {
    if !can_trace() {
        return;
    }
    both_ways(&copies("drop", false), Watch::FirstThread, 4, back_while_something_can_be_undone);
}

/// What was killed is rolled back while no copy is gone, and continued when one is.
fn back_while_something_can_be_undone(scene: &Scene<'_>, after: &World, when: &str) {
    let Some(run) = scene.run() else {
        scene.before.is_now(scene, &format!("{when}: there is no run"));
        return;
    };
    let back = scene.pg_staging(&["--yes", "rollback", &run.id]);
    if back.code == 1 {
        // Killed after the server was asked to, and what it did meanwhile cannot be taken back.
        assert!(back.stderr.contains("took effect and cannot be taken back"), "{when}: {back}");
        if run.status == "interrupted" {
            let on = scene.pg_staging(&["continue", &run.id]);
            assert_eq!(on.code, 0, "{when}: {on}");
        }
        after.is_now(scene, when);
    } else {
        assert_eq!(back.code, 0, "{when}: {back}");
        assert_eq!(scene.run().unwrap().status, "rolled_back", "{when}");
        scene.before.is_now(scene, when);
    }
    assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
}

#[test]
fn a_purge_killed_anywhere_is_continued_and_rolled_back_while_no_database_is_gone() {
    if !can_trace() {
        return;
    }
    let mut scene = Scene::new(&SiteOptions::default(), "purge", DATE, |site| {
        for date in [EARLIER, DATE] {
            done(site, &["createdb", &site.section(), date]);
        }
        done(site, &["switch", &site.section(), EARLIER]);
        // The oldest one's entry is the file's last: that is where an undo puts it.
        for date in ["20261118", "20261117"] {
            done(site, &["createdb", &site.section(), date]);
        }
        site.set("keep_bases", "1").unwrap();
    });
    scene.command.pop();
    both_ways(&scene, Watch::FirstThread, 4, back_while_something_can_be_undone);
}

#[test]
fn sql_files_in_a_copy_that_is_in_use_take_effect_once_wherever_the_run_is_killed() {
    if !can_trace() {
        return;
    }
    let mut scene = copies("postsql", false);
    let note = |what: &str| format!("INSERT INTO log SELECT count(*) + 1, '{what}' FROM log;\n");
    let log = "CREATE TABLE IF NOT EXISTS log (number bigint, what text);\n";
    for (name, sql) in
        [("01.sql", format!("{log}{}", note("one"))), ("02.sql", note("two")), ("03.sql", note("three"))]
    {
        scene.site.add_sql("post", name, &sql).unwrap();
    }
    scene.anew = true;
    let mut chance = Chance::of("postsql");
    let (after, points) = undisturbed(&scene, Watch::FirstThread);
    at_each(&chance.some_of(points, 8), |point| {
        let killed = kill(&scene, point);
        ends_as_undisturbed(&scene, &after, &format!("postsql at {point} (killed: {killed})"));
    });
}

#[test]
fn a_change_of_search_path_killed_anywhere_is_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    let mut scene = copies("search_path", false);
    scene.site.set("search_path", "sales, public").unwrap();
    scene.anew = true;
    both_ways(&scene, Watch::FirstThread, 4, |scene, _, when| is_as_before(scene, when));
}

#[test]
fn a_fetch_killed_anywhere_is_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let scene = Scene::new(&options, "fetch", DATE, |site| site.set("fast", "False").unwrap());
    both_ways(&scene, Watch::FirstThread, 4, |scene, _, when| is_as_before(scene, when));
}

#[test]
fn a_restore_part_by_part_killed_anywhere_is_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    let options = SiteOptions { serving: Serving::Rude, ..SiteOptions::default() };
    let mut scene = Scene::new(&options, "restore", DATE, |site| site.set("restore_jobs", "2").unwrap());
    scene.by_parts = true;
    both_ways(&scene, Watch::FirstThread, 6, |scene, _, when| is_as_before(scene, when));
}

#[test]
fn a_load_killed_anywhere_is_continued_or_rolled_back() {
    if !can_trace() {
        return;
    }
    let mut scene = Scene::new(&SiteOptions::default(), "load", DATE, |site| {
        done(site, &["createdb", &site.section(), EARLIER]);
        done(site, &["switch", &site.section(), EARLIER]);
        configure(site);
    });
    let dump = scene.site.backups().join(scene.site.backup_name("2026-11-21"));
    scene.command[2] = dump.display().to_string();
    both_ways(&scene, Watch::FirstThread, 4, |scene, _, when| is_as_before(scene, when));
}

#[test]
fn a_second_crash_on_the_way_on_or_back_changes_nothing() {
    if !can_trace() {
        return;
    }
    let mut chance = Chance::of("second crash");
    let scene = restore();
    let (after, points) = undisturbed(&scene, Watch::FirstThread);
    let seconds: Vec<Point> = points.iter().filter(|point| point.is_among_the_first(20)).cloned().collect();
    let count = if everything() { 30 } else { 4 };
    at_each(&chance.sample_of(points, count), |point| {
        for then in BOTH {
            let killed = kill(&scene, point);
            let Some(run) = scene.run().filter(|run| killed && run.status == "interrupted") else { return };
            let second = chance.one_of(&seconds);
            let word = if then == Then::Continue { "continue" } else { "rollback" };
            let journal = scene.site.journal().display().to_string();
            let outcome = run_up_to(&scene.site, &["--journal", &journal, word, &run.id], &second);
            let when = format!("at {point}, then {word} at {second} ({})", outcome.code);
            assert!([0, 137].contains(&outcome.code), "{when}: {outcome}");
            if outcome.code == 137 {
                // Whichever way it was going, `continue` goes on with it.
                let outcome = scene.pg_staging(&["continue", &run.id]);
                let status = scene.run().unwrap().status;
                let is_over = outcome.code == 1 && outcome.stderr.contains("there is nothing to continue");
                assert!(outcome.code == 0 || is_over, "{when}: {outcome}");
                if then == Then::RollBack && status == "succeeded" {
                    // It was killed before the rollback was recorded: then it is a run like any other.
                    after.is_now(&scene, &when);
                    continue;
                }
            }
            let (wanted, status) =
                if then == Then::Continue { (&after, "succeeded") } else { (&scene.before, "rolled_back") };
            assert_eq!(scene.run().unwrap().status, status, "{when}");
            wanted.is_now(&scene, &when);
            assert_eq!(scene.leftovers(&run.id), Vec::<String>::new(), "{when}");
        }
    });
}
