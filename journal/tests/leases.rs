//! Every interleaving of two controllers, their questions, the answers that are late or lost, and the clock: never do two
//! act as owners, and nothing that was acknowledged is lost or doubled.
//!
//! A controller does here what `store/postgres/log.rs` and the engine do: it believes in its lease until the moment at
//! which the question that was answered was *asked*, and a lease later; it looks at its clock before each thing it does;
//! it asks again when no answer came. That it is stopped, for however long, is that others are chosen to move.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]

mod protocol;

use std::collections::{HashSet, VecDeque};

use protocol::{Claimed, Server};

const LEASE: u8 = 2;
/// How many answers may be lost.
const LOST: u8 = 1;
/// How many events a run may have.
const EVENTS: u8 = 2;

/// What the server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Question {
    Claim { run: usize, claim: u8 },
    Append { run: usize, epoch: u8, n: u8, before: u8, hash: u8 },
    Renew { run: usize, epoch: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Answer {
    Claimed(Claimed),
    Is(bool),
}

/// A question under way: not at the server yet, or answered there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Asked {
    question: Question,
    /// What would be left of a lease that began when it was asked first.
    left: u8,
    answer: Option<Answer>,
}

/// What a controller knows of what it owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Owned {
    run: usize,
    epoch: u8,
    events: u8,
    head: u8,
    /// How much of its lease it believes to be left.
    left: u8,
    /// Whether the last event announced something that is not done yet.
    announced: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Controller {
    owned: Option<Owned>,
    asked: Option<Asked>,
    /// A question that was given up, and may still arrive.
    late: Option<Question>,
    /// How often it has claimed something.
    claims: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct World {
    server: Server,
    controllers: [Controller; 2],
    /// How many answers were lost.
    lost: u8,
}

/// The runs that a controller may claim next: one of them twice, the other once. Which is which, of runs and of
/// controllers, makes no difference.
fn claimable(who: usize, claims: u8) -> &'static [usize] {
    match (who, claims) {
        (0, 0) => &[0],
        (0, 1) | (1, 0) => &[0, 1],
        _ => &[],
    }
}

impl World {
    /// Everything that may happen next.
    fn next(&self) -> Vec<World> {
        let mut next = vec![self.later()];
        for who in 0..2 {
            match self.controllers[who] {
                Controller { asked: Some(asked), .. } => self.while_waiting(who, asked, &mut next),
                Controller { owned: Some(owned), .. } => self.as_owner(who, owned, &mut next),
                Controller { claims, .. } => next.extend(claimable(who, claims).iter().map(|run| {
                    let run = *run;
                    let claim = u8::try_from(who).unwrap() + 2 * claims + 1;
                    let mut world = self.asking(who, Question::Claim { run, claim });
                    world.controllers[who].claims += 1;
                    world
                })),
            }
            if let Some(question) = self.controllers[who].late {
                let mut world = *self;
                world.controllers[who].late = None;
                world.answer(question);
                next.push(world);
            }
        }
        next
    }

    /// The same without what makes no difference to anything that may come.
    fn plain(mut self) -> World {
        for run in &mut self.server.runs {
            run.claim = if run.lease > 0 { run.claim } else { 0 };
        }
        for me in &mut self.controllers {
            me.late = me.late.filter(|late| match *late {
                Question::Claim { .. } => true,
                Question::Append { run, epoch, .. } | Question::Renew { run, epoch } => {
                    self.server.owns(run, epoch)
                }
            });
        }
        self
    }

    /// A moment later. What is looked at is how much of each lease is left, so that time need not have an end.
    fn later(&self) -> World {
        let mut world = *self;
        for run in &mut world.server.runs {
            run.lease = run.lease.saturating_sub(1);
        }
        for me in &mut world.controllers {
            me.owned = me.owned.map(|owned| Owned { left: owned.left.saturating_sub(1), ..owned });
            me.asked = me.asked.map(|asked| Asked { left: asked.left.saturating_sub(1), ..asked });
        }
        world
    }

    fn asking(&self, who: usize, question: Question) -> World {
        let mut world = *self;
        world.controllers[who].asked = Some(Asked { question, left: LEASE, answer: None });
        world
    }

    fn while_waiting(&self, who: usize, asked: Asked, next: &mut Vec<World>) {
        let mut world = *self;
        if asked.answer.is_some() {
            world.hear(who, asked);
        } else {
            let answer = Some(world.answer(asked.question));
            world.controllers[who].asked = Some(Asked { answer, ..asked });
        }
        next.push(world);
        // The answer is lost, or so it seems: it is asked again, and the question may still arrive once more.
        if self.lost < LOST {
            let mut world = *self;
            world.lost += 1;
            world.controllers[who].asked = Some(Asked { answer: None, ..asked });
            world.controllers[who].late = asked.answer.is_none().then_some(asked.question);
            next.push(world);
        }
    }

    fn as_owner(&self, who: usize, owned: Owned, next: &mut Vec<World>) {
        let Owned { run, epoch, events, head, left, announced } = owned;
        let mut world = *self;
        if left == 0 {
            // Whoever finds that out does nothing more.
            world.controllers[who].owned = None;
            next.push(world);
            return;
        }
        if left < LEASE {
            next.push(self.asking(who, Question::Renew { run, epoch }));
        }
        if announced {
            world.act(who, owned);
            next.push(world);
        } else if events < EVENTS {
            // It says who wrote it, as which owner, and where.
            let hash = 1 + u8::try_from(who).unwrap() + 2 * events + 8 * epoch;
            next.push(self.asking(who, Question::Append { run, epoch, n: events, before: head, hash }));
        }
        let mut world = *self;
        world.server.release(run, epoch);
        world.controllers[who].owned = None;
        next.push(world);
    }

    /// A question arrives at the server.
    fn answer(&mut self, question: Question) -> Answer {
        match question {
            Question::Claim { run, claim } => Answer::Claimed(self.server.claim(run, claim, LEASE)),
            Question::Append { run, epoch, n, before, hash } => {
                Answer::Is(self.server.append(run, epoch, n, before, hash))
            }
            Question::Renew { run, epoch } => Answer::Is(self.server.renew(run, epoch, LEASE)),
        }
    }

    /// The answer arrives.
    fn hear(&mut self, who: usize, Asked { question, left, answer }: Asked) {
        let me = &mut self.controllers[who];
        me.asked = None;
        let granted =
            |run, epoch, events, head| Some(Owned { run, epoch, events, head, left, announced: false });
        me.owned = match (question, answer, me.owned) {
            (
                Question::Claim { run, .. },
                Some(Answer::Claimed(Claimed::Granted { epoch, events, head })),
                _,
            ) => granted(run, epoch, events, head),
            (Question::Append { n, hash, .. }, Some(Answer::Is(true)), Some(owned)) => {
                Some(Owned { events: n + 1, head: hash, announced: true, ..owned })
            }
            (Question::Renew { .. }, Some(Answer::Is(true)), Some(owned)) => Some(Owned { left, ..owned }),
            _ => None,
        };
    }

    /// A controller does what it announced.
    fn act(&mut self, who: usize, owned: Owned) {
        let Owned { run, epoch, events, head, .. } = owned;
        assert!(self.server.owns(run, epoch), "one acts that is not the owner: {self:?}");
        let there = self.server.runs[run];
        assert_eq!((there.events, there.head), (events, head), "one acts on what is not there: {self:?}");
        let other = self.controllers[1 - who].owned.filter(|other| other.left > 0);
        assert_eq!(other, None, "two may act: {self:?}");
        self.controllers[who].owned = Some(Owned { announced: false, ..owned });
    }
}

#[test]
fn of_two_controllers_never_more_than_one_acts() {
    let mut seen = HashSet::from([World::default()]);
    let mut waiting = VecDeque::from([World::default()]);
    let (mut taken_over, mut fenced) = (false, false);
    while let Some(world) = waiting.pop_front() {
        taken_over |= world.server.runs.iter().any(|run| run.epoch > 2 && run.events > 1);
        fenced |= world
            .controllers
            .iter()
            .any(|me| me.owned.is_some_and(|owned| !world.server.owns(owned.run, owned.epoch)));
        for next in world.next().into_iter().map(World::plain) {
            if seen.insert(next) {
                waiting.push_back(next);
            }
        }
    }
    // So that what was walked through is what was meant.
    assert!(taken_over && fenced && seen.len() > 100_000, "{} states", seen.len());
}
