//! A newer version has written into the journal: what this one makes of that.

use std::fs;

use journal::{
    codec,
    event::{Actor, Envelope, Event, Hash, Process, RunId, RunStarted},
};
use serde_json::{Value, json};

use crate::{
    run_file::{self, seal},
    stage::{Site, SiteOptions, Stage},
    traces::{error, is_refused, json as ask, last_run, says, succeeds},
};

/// The version that is tested.
const THIS: &str = env!("CARGO_PKG_VERSION");

/// `event` after the `events` of a run, as version 99.1.0 would record it.
fn after(events: &[Vec<u8>], id: &str, event: Event) -> Vec<u8> {
    let last = events.last().map(|bytes| codec::decode(bytes).unwrap());
    let run: RunId = id.parse().unwrap();
    let envelope = Envelope {
        run,
        n: events.len().try_into().unwrap(),
        id: run.0,
        at: last.as_ref().map_or_else(jiff::Timestamp::now, |last| last.at),
        epoch: last.map_or(1, |last| last.epoch + 1),
        actor: Actor { user: "grace".to_owned(), host: "elsewhere".to_owned(), pid: 7 },
        prev: events.last().map_or(Hash::ZERO, |bytes| Hash::of(bytes)),
        event,
    };
    codec::encode(&envelope).unwrap()
}

/// Appends to a run's file what a newer version would: that it took the run up, and a fact that `change` made newer.
fn go_on_as_a_newer_version(site: &Site<'_>, id: &str, change: &dyn Fn(&mut [u8])) {
    let mut events = run_file::events(site, id);
    let process = Process { pid: 1, start_time: 1, boot_id: "b".to_owned() };
    events.push(after(&events, id, Event::RunContinued { version: "99.1.0".to_owned(), process }));
    let mut newer = after(&events, id, Event::RunSucceeded);
    change(&mut newer);
    seal(&mut newer);
    events.push(newer);
    run_file::write(site, id, &events);
}

#[test]
fn a_run_of_a_newer_version_is_listed_as_unreadable_told_as_far_as_it_goes_and_left_alone() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    succeeds(&site, &["createdb", &section, "20261121"]);
    let id = last_run(&site)["id"].as_str().unwrap().to_owned();
    let known = ask(&site, &["inspect", &id])["events"].as_array().unwrap().clone();
    go_on_as_a_newer_version(&site, &id, &|bytes| bytes[8..10].copy_from_slice(&9_999_u16.to_be_bytes()));

    let run = last_run(&site);
    assert_eq!((&run["id"], &run["status"]), (&json!(id), &json!("unreadable")));
    assert_eq!((&run["command"], &run["steps_done"]), (&Value::Null, &Value::Null));
    let answer = ask(&site, &["history", "--status", "unreadable"]);
    assert_eq!(answer["runs"], json!([run]));
    let table = succeeds(&site, &["history"]).stdout;
    assert!(table.lines().nth(1).unwrap().contains("unreadable"), "{table}");

    let answer = ask(&site, &["inspect", &id]);
    assert_eq!(
        (&answer["run"]["status"], &answer["run"]["version"]),
        (&json!("unreadable"), &json!("99.1.0"))
    );
    let events = answer["events"].as_array().unwrap();
    assert_eq!(events.len(), known.len() + 2);
    let last = events.last().unwrap();
    assert_eq!((&last["kind"], &last["detail"]), (&json!("unknown"), &json!({ "type": 9999, "version": 1 })));
    assert_eq!((&last["actor"]["user"], &last["n"]), (&json!("grace"), &json!(known.len() + 1)));
    let text = succeeds(&site, &["inspect", &id]).stdout;
    assert!(text.contains("written   by version 99.1.0 of pg_staging"), "{text}");
    assert!(text.contains("status    unreadable"), "{text}");
    let audit = succeeds(&site, &["audit", "--format", "json"]).stdout;
    let told: Vec<Value> = audit.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told.last(), Some(last));
    assert_eq!(succeeds(&site, &["audit"]).stdout.lines().count(), events.len() + 1);

    let said = "run <run> was written by version 99.1.0 of pg_staging, and cannot be read by this one (<this>)\n\
                cause: event <n>: type 9999, version 1\n\
                hint: use that version; pg_staging inspect <run> tells what can be told by this one";
    let said = said.replace("<n>", &(known.len() + 1).to_string()).replace("<this>", THIS);
    for arguments in [
        &["continue", &id][..],
        &["rollback", &id, "--yes"],
        &["abandon", &id, "--reason", "old", "--yes"],
        &["resolve", &id, "bouncer_add", "--as", "applied", "--reason", "seen"],
        &["follow", &id],
    ] {
        if arguments[0] == "follow" {
            assert_eq!(site.run(arguments).unwrap().code, 2);
        } else {
            is_refused(&site, arguments, 2, &said);
        }
    }
    let outcome = succeeds(&site, &["continue", "--all"]);
    assert!(outcome.stderr.contains("cannot be read by this version, and is left alone"), "{outcome}");
    assert_eq!(last_run(&site)["status"], "unreadable");
}

/// All files of the journal that runs are in, with what they hold.
fn files(site: &Site<'_>) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for folder in ["runs", "attachments"] {
        for entry in fs::read_dir(site.journal().join(folder)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !name.ends_with(".lock") {
                files.push((name, fs::read(entry.path()).unwrap()));
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_newer_version_of_a_known_event_a_newer_envelope_and_a_newer_encoding_are_refused_like_an_unknown_type() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    // Where in an event its numbers are: see the envelope's layout in journal/src/codec.rs.
    type Change<'a> = (&'a str, &'a dyn Fn(&mut [u8]));
    let changes: [Change<'_>; 3] = [
        ("type 17, version 2", &|bytes| bytes[10..12].copy_from_slice(&2_u16.to_be_bytes())),
        ("envelope 2, codec 1", &|bytes| bytes[4] = 2),
        ("envelope 1, codec 9", &|bytes| bytes[5] = 9),
    ];
    for (day, (what, change)) in ["20261121", "20261120", "20261119"].into_iter().zip(changes) {
        succeeds(&site, &["createdb", &section, day]);
        let id = last_run(&site)["id"].as_str().unwrap().to_owned();
        go_on_as_a_newer_version(&site, &id, change);
        let (run, before) = (last_run(&site), files(&site));
        assert_eq!((&run["id"], &run["status"]), (&json!(id), &json!("unreadable")), "{what}");
        let n = run_file::events(&site, &id).len() - 1;
        let said = format!(
            "run <run> was written by version 99.1.0 of pg_staging, and cannot be read by this one ({THIS})\n\
             cause: event {n}: {what}\n\
             hint: use that version; pg_staging inspect <run> tells what can be told by this one"
        );
        for arguments in [
            &["continue", &id][..],
            &["rollback", &id, "--yes"],
            &["abandon", &id, "--reason", "old", "--yes"],
            &["resolve", &id, "bouncer_add", "--as", "applied", "--reason", "seen"],
        ] {
            is_refused(&site, arguments, 2, &said);
        }
        succeeds(&site, &["inspect", &id]);
        succeeds(&site, &["audit"]);
        assert_eq!(files(&site), before, "{what}: nothing is touched");
    }
    let answer = ask(&site, &["history", "--status", "unreadable"]);
    assert_eq!(answer["runs"].as_array().unwrap().len(), 3);
    // Other runs on the same target are not kept from their work.
    succeeds(&site, &["drop", &section, "20261120"]);
}

#[test]
fn a_run_that_a_newer_version_wrote_from_its_first_event_on_is_listed_and_refused() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    succeeds(&site, &["createdb", &site.section(), "20261121"]);
    let known = last_run(&site)["id"].as_str().unwrap().to_owned();
    let mut events = run_file::events(&site, &known);
    for event in &mut events {
        event[4] = 2;
        seal(event);
    }
    run_file::write(&site, &known, &events);
    for file in ["sled", "sled.head"] {
        let path = site.journal().join(file);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let answer = ask(&site, &["history"]);
    let shown = (&answer["runs"][0]["id"], &answer["runs"][0]["status"]);
    assert_eq!(shown, (&json!(known), &json!("unreadable")), "{answer}");
    let said = format!(
        "run <run> was written by a newer version of pg_staging, and cannot be read by this one ({THIS})\n\
         cause: event 0: envelope 2, codec 1\n\
         hint: use that version; pg_staging inspect <run> tells what can be told by this one"
    );
    let before = files(&site);
    is_refused(&site, &["continue", &known], 2, &said);
    is_refused(&site, &["rollback", &known, "--yes"], 2, &said);
    let text = succeeds(&site, &["inspect", &known]).stdout;
    assert!(text.contains("written   by a version that does not tell of pg_staging"), "{text}");
    assert_eq!(files(&site), before);
}

#[test]
fn a_plan_with_a_step_that_only_a_newer_version_knows_is_shown_and_not_carried_out() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    succeeds(&site, &["createdb", &section, "20261121"]);
    let known = run_file::events(&site, last_run(&site)["id"].as_str().unwrap());
    let Event::RunStarted(known) = codec::decode(&known[0]).unwrap().event else { panic!("{known:?}") };
    let ids = ["01f00000-0000-7000-8000-000000000001", "01f00000-0000-7000-8000-000000000002"];
    for (id, (kind, version)) in ids.into_iter().zip([("create_database", 2), ("teleport", 1)]) {
        let mut started = RunStarted { version: "99.1.0".to_owned(), ..(*known).clone() };
        let step = started.plan.iter_mut().find(|step| step.kind == "create_database").unwrap();
        (step.kind, step.version) = (kind.to_owned(), version);
        let name = step.name.clone();
        run_file::write(&site, id, &[after(&[], id, Event::RunStarted(Box::new(started)))]);
        let (run, before) = (last_run(&site), files(&site));
        assert_eq!((&run["id"], &run["status"]), (&json!(id), &json!("interrupted")));
        assert_eq!(run["version"], "99.1.0");
        for verb in ["continue", "rollback"] {
            let outcome = site.run(&[verb, id]).unwrap();
            assert_eq!(outcome.code, 2, "{outcome}");
            says(
                &error(&site, &outcome),
                &format!(
                    "run <run> was begun by version 99.1.0, and its step '{name}' (kind {kind}, version {version}) \
                     is not known to this one\n\
                     hint: continue it with version 99.1.0 of pg_staging"
                ),
            );
        }
        assert_eq!(files(&site), before, "nothing is touched");
        succeeds(&site, &["abandon", id, "--reason", "that version is gone", "--yes"]);
        assert_eq!(last_run(&site)["status"], "abandoned");
    }
}
