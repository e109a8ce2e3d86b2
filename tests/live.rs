//! `inspect --live` says what is behind an alias, and does not claim to know what it does not.

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    stage::{Site, SiteOptions, Stage},
    traces::{ini, json as ask, last_run, plain, says, succeeds},
};

const DAY: &str = "20261121";
const OTHER: &str = "20261120";

fn live(site: &Site<'_>) -> Value {
    let answer = ask(site, &["inspect", "--live", &site.section()]);
    assert_eq!(answer["schema"], 1);
    answer["live"].clone()
}

fn notes(live: &Value) -> Vec<&str> {
    live["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap()).collect()
}

fn times(text: &str) -> String {
    Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d").unwrap().replace_all(text, "<when>").into_owned()
}

#[test]
fn the_backup_behind_the_alias_is_told_with_who_restored_it_and_who_switched_to_it_and_when() {
    let site = Site::new(Stage::shared().unwrap(), &SiteOptions::default()).unwrap();
    let section = site.section();
    let outcome = site.run(&["inspect", "--live", &section]).unwrap();
    assert_eq!(outcome.code, 6, "{outcome}");
    let bytes = std::fs::read(site.dump()).unwrap();
    let sum = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    site.write_file(&format!("{}.sha256", site.backup_name("2026-11-21")), format!("{sum}\n")).unwrap();

    succeeds(&site, &["restore", &section, DAY]);
    let restored = last_run(&site);
    let events = ask(&site, &["inspect", restored["id"].as_str().unwrap()])["events"].clone();
    let of_switch = |event: &&Value| event["step"] == "switch" && event["kind"] == "step_succeeded";
    let switched = events.as_array().unwrap().iter().find(of_switch).unwrap().clone();
    let now = live(&site);
    assert_eq!((&now["alias"], &now["database"]), (&json!(site.dbname()), &json!(site.copy(DAY))));
    assert_eq!((&now["made_by"], &now["run"]), (&restored["id"], &restored));
    let backup = &now["backup"];
    let url = backup["url"].as_str().unwrap();
    assert!(url.ends_with(&format!("/{}", site.backup_name("2026-11-21"))), "{url}");
    assert_eq!((&backup["bytes"], &backup["sha256"]), (&json!(bytes.len()), &json!(sum)));
    assert!(backup["validator"].is_string(), "{backup}");
    let by = &now["switched"];
    assert_eq!((&by["run"], &by["command"]), (&restored["id"], &json!("restore")));
    assert_eq!((&by["at"], &by["actor"]), (&switched["at"], &switched["actor"]));
    assert_eq!(notes(&now), Vec::<&str>::new());
    let text = times(&plain(&site, &succeeds(&site, &["inspect", "--live", &section]).stdout));
    let who = restored["actor"]["user"].as_str().unwrap();
    let host = restored["actor"]["host"].as_str().unwrap();
    let run = format!("restore shop.dev {DAY} (run <run>) of {who}@{host}");
    let head: Vec<&str> = text.lines().take(3).collect();
    assert_eq!(
        head,
        [
            format!("alias     shop points at shop_{DAY} on 127.0.0.1:<port>"),
            format!("since     <when>, by {run}"),
            format!("made by   {run}, succeeded, begun <when>"),
        ]
    );
    assert!(text.contains("\nsha256    <sha256>\n"), "{text}");

    // Another copy, by another run: made empty, switched to by itself; then back.
    succeeds(&site, &["createdb", &section, OTHER]);
    let created = last_run(&site)["id"].clone();
    succeeds(&site, &["switch", &section, OTHER]);
    let switched = last_run(&site)["id"].clone();
    let now = live(&site);
    assert_eq!((&now["made_by"], &now["backup"]), (&created, &Value::Null));
    assert_eq!((&now["switched"]["run"], &now["switched"]["command"]), (&switched, &json!("switch")));
    succeeds(&site, &["rollback", switched.as_str().unwrap(), "--yes"]);
    let now = live(&site);
    assert_eq!((&now["made_by"], &now["switched"]["run"]), (&restored["id"], &switched));
    assert_eq!(notes(&now), Vec::<&str>::new());

    // Somebody points it elsewhere by hand.
    let alias = Regex::new(&format!(r"(?m)^({}\s*=.*dbname=)\S+", site.dbname())).unwrap();
    let edited = alias.replace(&ini(&site), format!("${{1}}{}", site.copy(OTHER))).into_owned();
    assert_ne!(edited, ini(&site));
    site.bouncer().write_ini(edited).unwrap();
    site.bouncer().admin("RELOAD").unwrap();
    let now = live(&site);
    assert_eq!((&now["database"], &now["switched"]), (&json!(site.copy(OTHER)), &Value::Null));
    assert_eq!(now["made_by"], created);
    says(
        &plain(&site, notes(&now)[0]),
        &format!(
            "the last change of shop in the journal, by run <run> at <time>, left it at shop_{DAY}: \
             it was pointed at shop_{OTHER} by other means"
        ),
    );

    // A copy without our mark, and one whose run is not in the journal.
    let comment = |text: &str| {
        let sql = format!("COMMENT ON DATABASE \"{}\" IS {text}", site.copy(OTHER));
        site.cluster().psql("postgres", &sql).unwrap();
    };
    comment("'made by hand'");
    let now = live(&site);
    assert_eq!((&now["made_by"], &now["run"], &now["backup"]), (&Value::Null, &Value::Null, &Value::Null));
    let unmarked = format!("{} has no mark of pg_staging: it was made by other means", site.copy(OTHER));
    assert!(notes(&now).contains(&unmarked.as_str()), "{now}");
    let stranger = "01a20c57-f9f7-723f-a6a3-1875b473c149";
    comment(&format!("'pg_staging run {stranger}'"));
    let now = live(&site);
    assert_eq!((&now["made_by"], &now["run"]), (&json!(stranger), &Value::Null));
    let unknown =
        format!("{} was made by run {stranger}, which this journal does not have", site.copy(OTHER));
    assert!(notes(&now).contains(&unknown.as_str()), "{now}");
    let text = succeeds(&site, &["inspect", "--live", &section]).stdout;
    assert!(text.contains("\nsince     unknown\nmade by   unknown\nnote      "), "{text}");
}
