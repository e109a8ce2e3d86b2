//! The functions in `schema.sql` do what the model of them does, in every state that two owners of runs on the same target
//! can bring about with a few calls. What the model promises is walked through in `journal/tests/leases.rs`.

use std::{collections::HashSet, fmt::Write as _};

use journal::store::Store as _;

use super::{
    Database,
    model::{Claimed, Server},
};

/// What is left of a lease: it lasts, or it has ended.
const LEASE: u8 = 1;
/// How many calls are made before the one that is looked at.
const CALLS: usize = 5;

/// What an owner believes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Owner {
    run: usize,
    epoch: u8,
    events: u8,
    head: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct World {
    server: Server,
    owners: [Owner; 2],
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Claim {
        who: usize,
        run: usize,
    },
    /// With or without an answer that arrives.
    Append {
        who: usize,
        heard: bool,
    },
    Renew {
        who: usize,
    },
    Release {
        who: usize,
    },
    /// Time passes.
    End {
        run: usize,
    },
}

fn calls() -> Vec<Call> {
    let of_one = |who| {
        [
            Call::Claim { who, run: 0 },
            Call::Claim { who, run: 1 },
            Call::Append { who, heard: true },
            Call::Append { who, heard: false },
            Call::Renew { who },
            Call::Release { who },
            Call::End { run: who },
        ]
    };
    (0..2).flat_map(of_one).collect()
}

/// A hash of 32 bytes, of which one differs.
fn hash(number: u8) -> String {
    format!("decode(repeat('00', 31) || '{number:02x}', 'hex')")
}

fn id(run: usize) -> String {
    format!("'00000000-0000-7000-8000-00000000000{run}'")
}

fn text(is: bool) -> &'static str {
    if is { "t" } else { "f" }
}

impl World {
    /// Makes a call, on the model and as SQL; gives the SQL and the line that answers it.
    fn call(&mut self, call: Call) -> (String, String) {
        match call {
            Call::Claim { who, run } => self.claim(who, run),
            Call::Append { who, heard } => self.append(who, heard),
            Call::Renew { who } => {
                let Owner { run, epoch, .. } = self.owners[who];
                let sql = format!("SELECT staging_journal.renew({}, {epoch}, '1 hour');", id(run));
                (sql, text(self.server.renew(run, epoch, LEASE)).to_owned())
            }
            Call::Release { who } => {
                let Owner { run, epoch, .. } = self.owners[who];
                self.server.release(run, epoch);
                (format!("SELECT staging_journal.release({}, {epoch});", id(run)), String::new())
            }
            Call::End { run } => {
                self.server.runs[run].lease = 0;
                let set = "UPDATE staging_journal.run SET expires = clock_timestamp()";
                (
                    format!("{set} WHERE id = {} AND expires IS NOT NULL;\nSELECT 'ended';", id(run)),
                    "ended".to_owned(),
                )
            }
        }
    }

    fn claim(&mut self, who: usize, run: usize) -> (String, String) {
        let sql = format!(
            "SELECT busy, epoch, events, head FROM staging_journal.claim({}, 'shop', '00000000-0000-7000-8000-0000000000a{who}', '{{}}', '1 hour');",
            id(run)
        );
        let claimed = self.server.claim(run, 1 + u8::try_from(who).unwrap(), LEASE);
        let answer = match claimed {
            Claimed::RunIsBusy => format!("{}|||", id(run).trim_matches('\'')),
            Claimed::TargetIsBusy => "shop|||".to_owned(),
            Claimed::Granted { epoch, events, head } => {
                self.owners[who] = Owner { run, epoch, events, head };
                format!("|{epoch}|{events}|{head:064x}")
            }
        };
        (sql, answer)
    }

    fn append(&mut self, who: usize, heard: bool) -> (String, String) {
        let Owner { run, epoch, events, head } = self.owners[who];
        let own = 1 + u8::try_from(who).unwrap() + 2 * events + 8 * epoch;
        let sql = format!(
            "SELECT staging_journal.append({}, {epoch}, {events}, {}, {}, 'event', now(), 'ada', now(), 'running', 'restore', 'shop', 'ada', false);",
            id(run),
            hash(head),
            hash(own)
        );
        let appended = self.server.append(run, epoch, events, head, own);
        if appended && heard {
            self.owners[who] = Owner { events: events + 1, head: own, ..self.owners[who] };
        }
        (sql, text(appended).to_owned())
    }

    /// What the tables hold of it, as [`TABLES`] tells.
    fn told(&self) -> String {
        let target = self.server.target.map(|(run, epoch)| format!("{run}.{epoch}")).unwrap_or_default();
        let run = |run: usize| {
            let row = self.server.runs[run];
            let told = format!("{}.{}.{}.{}", row.epoch, text(self.server.holds(run)), row.events, row.head);
            if row.epoch == 0 { String::new() } else { told }
        };
        let events: u8 = self.server.runs.iter().map(|run| run.events).sum();
        format!("{target}|{}|{}|{events}|{events}", run(0), run(1))
    }
}

/// What the tables hold, in one line.
const TABLES: &str = "
    WITH told AS (
        SELECT right(id::text, 1) AS run,
               concat_ws('.', epoch, coalesce(expires > clock_timestamp(), false), events, get_byte(head, 31)) AS row
          FROM staging_journal.run
    )
    SELECT (SELECT right(run::text, 1) || '.' || epoch FROM staging_journal.target),
           (SELECT row FROM told WHERE run = '0'), (SELECT row FROM told WHERE run = '1'),
           (SELECT seq FROM staging_journal.journal), (SELECT count(*) FROM staging_journal.event);";

/// The states that so many calls lead to, each with the calls that lead to it first.
fn states(calls_made: usize) -> Vec<(World, Vec<Call>)> {
    let mut seen = HashSet::from([World::default()]);
    let mut all = vec![(World::default(), Vec::new())];
    let mut next = 0;
    while let Some((world, way)) = all.get(next).cloned() {
        next += 1;
        if way.len() == calls_made {
            continue;
        }
        for call in calls() {
            let mut after = world;
            after.call(call);
            if seen.insert(after) {
                all.push((after, [way.clone(), vec![call]].concat()));
            }
        }
    }
    all
}

#[tokio::test]
async fn the_functions_do_what_their_model_does() {
    let database = Database::new();
    // Makes the tables.
    database.store(journal::store::postgres::LEASE).find("no such run").await.unwrap();
    let (mut script, mut answers) = (String::new(), Vec::new());
    let states = states(CALLS);
    for (_, way) in &states {
        // Every call there is, from this state on.
        script += "BEGIN;\n";
        let mut world = World::default();
        for call in way {
            let (sql, answer) = world.call(*call);
            writeln!(script, "{sql}").unwrap();
            answers.push(format!("{answer} after {way:?}"));
        }
        for call in calls() {
            let mut after = world;
            let (sql, answer) = after.call(call);
            writeln!(script, "SAVEPOINT here;\n{sql}{TABLES}\nROLLBACK TO here;\nRELEASE here;").unwrap();
            answers.extend([
                format!("{answer} after {way:?}, {call:?}"),
                format!("{} after {way:?}, {call:?}", after.told()),
            ]);
        }
        script += "ROLLBACK;\n";
    }
    assert!(states.len() > 100, "{} states", states.len());
    let found = database.psql(&script);
    for (found, expected) in found.lines().zip(&answers) {
        let (answer, calls) = expected.split_once(" after ").unwrap();
        assert_eq!(found, answer, "{calls}");
    }
    assert_eq!(found.lines().count(), answers.len());
}
