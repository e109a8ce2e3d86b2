//! The fold, on every log that a run can leave: walks along [`Run::next`] with any outcome at each turn, cut anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on fails"
)]

mod material;

use jiff::Timestamp;
use journal::codec::{self, CodecError};
use journal::event::{
    Actor, Detail, Effect, Envelope, Event, Failure, Hash, OnFailure, PlannedStep, Process, RollbackCause,
    RunId, RunStarted, StopCause, Verdict,
};
use journal::run::{FoldError, Next, Run, Status, StepStatus};
use material::{actor, detail, process, run_id, started};
use proptest::collection::vec;
use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};
use uuid::Uuid;

/// A log as it grows, and where its run stands.
struct Walk {
    log: Vec<Envelope>,
    run: Run,
    epoch: u64,
}

impl Walk {
    fn begin(started: RunStarted) -> Walk {
        let first = envelope(0, 1, Event::RunStarted(Box::new(started)));
        Walk { run: Run::begin(&first).unwrap(), log: vec![first], epoch: 1 }
    }

    fn record(&mut self, event: Event) {
        let envelope = envelope(self.run.next_n, self.epoch, event);
        self.run.apply(&envelope).unwrap();
        self.log.push(envelope);
    }

    /// One turn of the loop; `choice` decides on everything that the world decides.
    fn turn(&mut self, choice: u8) {
        match self.run.next() {
            Next::Do(index) => self.act(index, choice),
            Next::Observe(index) => self.observe(index, choice),
            Next::Undo(index) => self.undo(index, choice),
            Next::Finish(event) => self.record(event),
            Next::Rest => self.take_over(choice),
        }
    }

    fn act(&mut self, index: usize, choice: u8) {
        let step = u16::try_from(index).unwrap();
        let attempt = self.run.steps[index].attempts + 1;
        if choice.is_multiple_of(16) {
            let reason = "nothing to do".to_owned();
            return self.record(Event::StepSkipped { step, reason });
        }
        if choice % 16 == 1 {
            return self.fail(step, attempt, choice);
        }
        let intent = detail("attempt", attempt);
        self.record(Event::StepStarted { step, attempt, intent });
        match choice % 16 {
            2 => self.fail(step, attempt, choice),
            3 => self.interrupt(),
            4 => {}
            5 => {
                self.child(step, choice);
                self.fail(step, attempt, choice);
            }
            _ => {
                self.child(step, choice);
                let outcome = detail("made", attempt);
                self.record(Event::StepSucceeded { step, outcome, observed: false });
            }
        }
    }

    fn child(&mut self, step: u16, choice: u8) {
        let pid = u32::from(choice) + 2;
        let process = Process { pid, ..process() };
        self.record(Event::ChildStarted { step, process, program: "psql".to_owned() });
        let part = format!("part {}", choice % 3);
        self.record(Event::PartDone { step, part, detail: Detail::new() });
        if choice.is_multiple_of(2) {
            self.record(Event::ChildEnded { step, pid, ending: "exit status: 0".to_owned() });
        }
    }

    fn fail(&mut self, step: u16, attempt: u32, choice: u8) {
        let error = Failure::new("it did not work");
        let retry_in_ms = (choice >= 128).then_some(250);
        self.record(Event::StepFailed { step, attempt, error: error.clone(), retry_in_ms });
        if retry_in_ms.is_none() {
            let then = self.run.after_failure(usize::from(step), &error);
            self.record(then);
        }
    }

    fn observe(&mut self, index: usize, choice: u8) {
        let step = u16::try_from(index).unwrap();
        match choice % 8 {
            0 | 1 => self.act(index, choice),
            2 => {
                let error = Failure::new("nobody can tell");
                self.record(Event::StepUnknown { step, error });
            }
            3 | 4 => {
                let others = self.run.steps[index].planned.redo_with.iter().copied();
                let steps = others.chain([step]).collect();
                self.record(Event::StepsReset { steps, reason: "half".to_owned() });
            }
            _ => {
                let outcome = detail("seen", true);
                self.record(Event::StepSucceeded { step, outcome, observed: true });
            }
        }
    }

    fn undo(&mut self, index: usize, choice: u8) {
        let step = u16::try_from(index).unwrap();
        let attempt = self.run.steps[index].undo_attempts + 1;
        self.record(Event::UndoStarted { step, attempt });
        match choice % 8 {
            0 => {
                let error = Failure::new("still there");
                self.record(Event::UndoFailed { step, attempt, error, retry_in_ms: None });
            }
            1 => self.interrupt(),
            2 => {}
            _ => self.record(Event::UndoSucceeded { step, outcome: Detail::new() }),
        }
    }

    fn interrupt(&mut self) {
        let cause = StopCause::Signal(2);
        self.record(Event::RunStopped { cause, error: None });
    }

    /// What an operator may do to a run at rest.
    fn take_over(&mut self, choice: u8) {
        let finished = self.run.status.is_finished();
        let undone = matches!(self.run.status, Status::Failed | Status::RolledBack | Status::Abandoned);
        let open =
            |status| matches!(status, StepStatus::Unknown | StepStatus::UndoFailed | StepStatus::Failed);
        let unclear = self.run.steps.iter().position(|step| open(step.status));
        self.epoch += 1;
        match (choice % 8, unclear) {
            (0, _) if !finished => self.record(Event::RunAbandoned { reason: "enough".to_owned() }),
            (1 | 2, Some(index)) if !finished => {
                let verdict =
                    [Verdict::Applied, Verdict::Absent, Verdict::Undone][usize::from(choice / 8) % 3];
                let step = u16::try_from(index).unwrap();
                self.record(Event::StepResolved { step, verdict, reason: "looked".to_owned() });
            }
            (3, _) if !undone && self.run.cannot_be_undone().is_none() => {
                self.continued();
                let cause = RollbackCause::Request;
                self.record(Event::RollbackStarted { cause, reason: "asked".to_owned() });
            }
            _ if !finished => self.continued(),
            _ => self.epoch -= 1,
        }
    }

    fn continued(&mut self) {
        let version = "1.2.4".to_owned();
        self.record(Event::RunContinued { version, process: process() });
    }
}

fn envelope(n: u64, epoch: u64, event: Event) -> Envelope {
    Envelope {
        run: run_id(1),
        n,
        id: Uuid::from_u128(u128::from(n)),
        at: Timestamp::from_microsecond(1_700_000_000_000_000 + i64::try_from(n).unwrap()).unwrap(),
        epoch,
        actor: actor("ada"),
        prev: Hash::ZERO,
        event,
    }
}

fn plans() -> impl Strategy<Value = RunStarted> {
    let effect = prop_oneof![Just(Effect::None), Just(Effect::Undoable), Just(Effect::Final)];
    let step = (effect, vec(0..6_u16, 0..2), vec(0..6_u16, 0..2));
    (vec(step, 0..6), any::<bool>()).prop_map(|(steps, keep)| RunStarted {
        on_failure: if keep { OnFailure::Keep } else { OnFailure::Rollback },
        plan: (0..).zip(steps).map(|(index, step)| plan_step(index, step)).collect(),
        ..started("restore", Some("shop"))
    })
}

/// A step names only steps before it.
fn plan_step(index: u16, (effect, rests_on, redo_with): (Effect, Vec<u16>, Vec<u16>)) -> PlannedStep {
    let before = |steps: Vec<u16>| steps.into_iter().filter(|step| *step < index).collect();
    PlannedStep {
        rests_on: before(rests_on),
        redo_with: before(redo_with),
        ..material::planned(&format!("step {index}"), effect)
    }
}

fn walks() -> impl Strategy<Value = Vec<Envelope>> {
    (plans(), vec(any::<u8>(), 0..60)).prop_map(|(started, choices)| {
        let mut walk = Walk::begin(started);
        choices.into_iter().for_each(|choice| walk.turn(choice));
        walk.log
    })
}

/// What comes next must be something that can be done.
fn check_next(run: &Run) {
    match run.next() {
        Next::Do(index) => assert!(run.steps[index].intent.is_none()),
        Next::Observe(index) => assert!(run.steps[index].intent.is_some()),
        Next::Undo(index) => assert!(run.steps[index].needs_undo()),
        Next::Finish(event) => {
            let mut after = run.clone();
            after.apply(&envelope(run.next_n, run.epoch, event)).unwrap();
            assert_eq!(after.next(), Next::Rest, "a finished run rests");
        }
        Next::Rest => assert!(!run.status.is_moving()),
    }
}

fn details() -> impl Strategy<Value = Detail> {
    let key = "[a-zä\"\\\\]{0,6}";
    let value = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        ".{0,20}".prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    vec((key, value), 0..4).prop_map(Detail::from_iter)
}

fn failures() -> impl Strategy<Value = Failure> {
    let text = || proptest::option::of(".{0,30}");
    (any::<u8>(), ".{0,30}", text(), text()).prop_map(|(code, message, cause, hint)| Failure {
        cause,
        hint,
        ..Failure::new(message).code(code)
    })
}

fn processes() -> impl Strategy<Value = Process> {
    (any::<u32>(), any::<u64>(), ".{0,36}").prop_map(|(pid, start_time, boot_id)| Process {
        pid,
        start_time,
        boot_id,
    })
}

fn run_starts() -> impl Strategy<Value = Event> {
    let texts = (".{0,9}", ".{0,9}", vec(".{0,9}", 0..4));
    let options = (proptest::option::of(".{0,9}"), proptest::option::of(".{0,9}"));
    (plans(), texts, options, any::<(bool, u64)>(), details(), processes()).prop_map(
        |(plan, (version, command, arguments), (database, target), (read_only, limit), settings, process)| {
            Event::RunStarted(Box::new(RunStarted {
                version,
                command,
                arguments,
                database,
                target,
                read_only,
                retry_limit_ms: limit,
                settings,
                process,
                ..plan
            }))
        },
    )
}

fn step_events() -> impl Strategy<Value = Event> {
    let number = any::<u32>;
    let step = any::<u16>;
    let again = || proptest::option::of(any::<u64>());
    let verdict = prop_oneof![Just(Verdict::Applied), Just(Verdict::Absent), Just(Verdict::Undone)];
    prop_oneof![
        (step(), number(), details()).prop_map(|(step, attempt, intent)| Event::StepStarted {
            step,
            attempt,
            intent
        }),
        (step(), details(), any::<bool>()).prop_map(|(step, outcome, observed)| Event::StepSucceeded {
            step,
            outcome,
            observed
        }),
        (step(), ".{0,30}").prop_map(|(step, reason)| Event::StepSkipped { step, reason }),
        (step(), number(), failures(), again()).prop_map(|(step, attempt, error, retry_in_ms)| {
            Event::StepFailed { step, attempt, error, retry_in_ms }
        }),
        (step(), failures()).prop_map(|(step, error)| Event::StepUnknown { step, error }),
        (vec(step(), 0..9), ".{0,30}").prop_map(|(steps, reason)| Event::StepsReset { steps, reason }),
        (step(), verdict, ".{0,30}").prop_map(|(step, verdict, reason)| Event::StepResolved {
            step,
            verdict,
            reason
        }),
        (step(), ".{0,30}", details()).prop_map(|(step, part, detail)| Event::PartDone {
            step,
            part,
            detail
        }),
    ]
}

fn other_events() -> impl Strategy<Value = Event> {
    let number = any::<u32>;
    let step = any::<u16>;
    let again = || proptest::option::of(any::<u64>());
    prop_oneof![
        (".{0,9}", processes()).prop_map(|(version, process)| Event::RunContinued { version, process }),
        (step(), processes(), ".{0,30}").prop_map(|(step, process, program)| Event::ChildStarted {
            step,
            process,
            program
        }),
        (step(), number(), ".{0,30}").prop_map(|(step, pid, ending)| Event::ChildEnded { step, pid, ending }),
        (step(), number()).prop_map(|(step, attempt)| Event::UndoStarted { step, attempt }),
        (step(), details()).prop_map(|(step, outcome)| Event::UndoSucceeded { step, outcome }),
        (step(), number(), failures(), again()).prop_map(|(step, attempt, error, retry_in_ms)| {
            Event::UndoFailed { step, attempt, error, retry_in_ms }
        }),
        any::<bool>().prop_map(|request| Event::RollbackStarted {
            cause: if request { RollbackCause::Request } else { RollbackCause::Failure },
            reason: "so".to_owned(),
        }),
        Just(Event::RunSucceeded),
        Just(Event::RunRolledBack),
        failures().prop_map(|error| Event::RunFailed { error }),
        failures().prop_map(|error| Event::RunStuck { error }),
        (proptest::option::of(any::<u8>()), proptest::option::of(failures())).prop_map(|(signal, error)| {
            let cause = signal.map_or(StopCause::Failure, StopCause::Signal);
            Event::RunStopped { cause, error }
        }),
        ".{0,30}".prop_map(|reason| Event::RunAbandoned { reason }),
        (".{0,30}", ".{0,30}", any::<(u64, u64)>()).prop_map(|(set_aside, reason, (runs, events))| {
            Event::JournalRebuilt { set_aside, reason, runs, events }
        }),
    ]
}

fn envelopes() -> impl Strategy<Value = Envelope> {
    let event = prop_oneof![1 => run_starts(), 4 => step_events(), 4 => other_events()];
    let ids = any::<(u128, u128, u64, u64, [u8; 32])>();
    let at = -2_000_000_000_000_000_i64..4_000_000_000_000_000;
    (event, ids, at, ".{0,20}", ".{0,20}", any::<u32>()).prop_map(
        |(event, (run, id, n, epoch, prev), at, user, host, pid)| Envelope {
            run: RunId(Uuid::from_u128(run)),
            n,
            id: Uuid::from_u128(id),
            at: Timestamp::from_microsecond(at).unwrap(),
            epoch,
            actor: Actor { user, host, pid },
            prev: Hash(prev),
            event,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_prefix_of_every_log_says_what_comes_next(log in walks()) {
        let mut step_by_step = Run::begin(&log[0]).unwrap();
        check_next(&step_by_step);
        for (index, envelope) in log.iter().enumerate().skip(1) {
            step_by_step.apply(envelope).unwrap();
            let at_once = Run::fold(&log[..=index]).unwrap();
            prop_assert_eq!(&at_once, &step_by_step);
            prop_assert_eq!(at_once.next(), step_by_step.next());
            check_next(&at_once);
        }
    }

    #[test]
    fn a_log_with_a_gap_is_refused(log in walks(), at in any::<proptest::sample::Index>()) {
        let mut log = log;
        let gone = at.index(log.len());
        log.remove(gone);
        if gone < log.len() {
            let folded = Run::fold(&log);
            let refused = matches!(folded, Err(FoldError::Gap { .. } | FoldError::NoBeginning { .. }));
            prop_assert!(refused, "{folded:?}");
        }
    }

    #[test]
    fn a_log_out_of_order_is_refused(
        log in walks(),
        one in any::<proptest::sample::Index>(),
        other in any::<proptest::sample::Index>(),
    ) {
        let mut log = log;
        let (one, other) = (one.index(log.len()), other.index(log.len()));
        if one != other {
            log.swap(one, other);
            prop_assert!(Run::fold(&log).is_err());
        }
    }

    #[test]
    fn an_event_of_an_earlier_owner_is_refused(log in walks(), epoch in 0..3_u64) {
        let mut run = Run::fold(&log).unwrap();
        let before = run.clone();
        let late = envelope(run.next_n, epoch, Event::RunStopped { cause: StopCause::Signal(2), error: None });
        let applied = run.apply(&late);
        prop_assert_eq!(applied.is_err(), epoch < before.epoch);
        if applied.is_err() {
            prop_assert_eq!(run, before);
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written(envelope in envelopes()) {
        let bytes = codec::encode(&envelope).unwrap();
        prop_assert_eq!(codec::decode(&bytes), Ok(envelope.clone()));
        let header = codec::header(&bytes).unwrap();
        prop_assert_eq!((header.run, header.n, header.at), (envelope.run, envelope.n, envelope.at));
    }

    #[test]
    fn changed_bytes_are_never_another_event(
        envelope in envelopes(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<proptest::sample::Index>()),
        more in vec(any::<u8>(), 0..9),
    ) {
        let bytes = codec::encode(&envelope).unwrap();
        let mut changed = bytes.clone();
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        if let Some(cut) = cut {
            changed.truncate(cut.index(changed.len()));
        }
        changed.extend(more);
        if changed != bytes {
            prop_assert!(codec::decode(&changed).is_err());
        }
    }

    #[test]
    fn a_payload_of_any_bytes_is_an_event_or_an_error(
        type_id in 0..30_u16,
        flags in 0..3_u16,
        payload in vec(prop_oneof![3 => 0..3_u8, 1 => any::<u8>()], 0..200),
    ) {
        let mut bytes = codec::encode(&envelope(0, 1, Event::RunSucceeded)).unwrap();
        bytes.truncate(bytes.len() - 8);
        bytes[6..8].copy_from_slice(&flags.to_be_bytes());
        bytes[8..10].copy_from_slice(&type_id.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_be_bytes());
        match codec::decode(&bytes) {
            Err(CodecError::Damaged(_) | CodecError::Newer(_)) => {}
            Err(other) => prop_assert!(false, "{other}"),
            Ok(Envelope { event: Event::Skippable { .. }, .. }) => {}
            Ok(read) => prop_assert_eq!(codec::decode(&codec::encode(&read).unwrap()), Ok(read)),
        }
    }
}
