//! The circuit breaker of one node: after a few failures in a row nobody waits for it, until a single probe gets an answer.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that open the breaker.
pub(super) const FAILURES_MAX: u32 = 3;
/// Pause before the first probe; doubled by each probe that fails.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause between probes.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(4);

/// What the breaker says of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Ask it.
    Closed,
    /// One request may try whether it answers again.
    HalfOpen,
    /// Do not wait for it.
    Open,
}

/// Counts failures in a row.
#[derive(Clone, Debug, Default)]
pub(super) struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Debug)]
struct Open {
    since: Instant,
    until: Instant,
    pause: Duration,
    probing: bool,
}

impl Breaker {
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        match &self.open {
            None => Verdict::Closed,
            Some(open) if !open.probing && now >= open.until => Verdict::HalfOpen,
            Some(_) => Verdict::Open,
        }
    }

    /// Takes the one place of a probe. `false` when the breaker is not half-open.
    pub(super) fn probe(&mut self, now: Instant) -> bool {
        let is_free = self.verdict(now) == Verdict::HalfOpen;
        if let Some(open) = self.open.as_mut().filter(|_| is_free) {
            open.probing = true;
        }
        is_free
    }

    /// The node answered.
    pub(super) fn succeed(&mut self) {
        *self = Breaker::default();
    }

    /// The node failed. Returns whether this opened the breaker. A failure of a request that began before the breaker
    /// opened says nothing new: only the probe makes the pause longer.
    pub(super) fn fail(&mut self, was_probe: bool, now: Instant) -> bool {
        if let Some(open) = &mut self.open {
            if was_probe && open.probing {
                let pause = (open.pause * 2).min(PAUSE_MAX);
                *open = Open { since: now, until: now + pause, pause, probing: false };
            }
            return false;
        }
        self.failures += 1;
        let opens = self.failures >= FAILURES_MAX;
        if opens {
            self.open = Some(Open { since: now, until: now + PAUSE_MIN, pause: PAUSE_MIN, probing: false });
        }
        opens
    }

    /// The probe ended without a verdict.
    pub(super) fn abandon_probe(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// The node was heard of by itself: there is no need to wait out a long pause.
    pub(super) fn heard(&mut self, at: Instant) {
        if let Some(open) = &mut self.open
            && at >= open.since + PAUSE_MIN
        {
            open.until = open.until.min(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Wait(u64),
        Probe,
        Succeed,
        Fail,
        FailProbe,
        Abandon,
        Heard,
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u64..3_000).prop_map(Step::Wait),
            Just(Step::Probe),
            Just(Step::Succeed),
            Just(Step::Fail),
            Just(Step::Fail),
            Just(Step::FailProbe),
            Just(Step::Abandon),
            Just(Step::Heard),
        ]
    }

    /// The same in plain numbers of milliseconds.
    #[derive(Debug, Default)]
    struct Model {
        now: u64,
        row: u32,
        opened: Option<u64>,
        next: u64,
        pause: u64,
        probing: bool,
    }

    impl Model {
        fn verdict(&self) -> Verdict {
            match self.opened {
                None => Verdict::Closed,
                Some(_) if self.probing || self.now < self.next => Verdict::Open,
                Some(_) => Verdict::HalfOpen,
            }
        }

        fn step(&mut self, step: &Step) {
            match step {
                Step::Wait(millis) => self.now += millis,
                Step::Probe => self.probing |= self.verdict() == Verdict::HalfOpen,
                Step::Succeed => *self = Model { now: self.now, ..Model::default() },
                Step::Fail | Step::FailProbe if self.opened.is_none() => {
                    self.row += 1;
                    if self.row == FAILURES_MAX {
                        self.opened = Some(self.now);
                        self.pause = PAUSE_MIN.as_millis() as u64;
                        self.next = self.now + self.pause;
                    }
                }
                Step::FailProbe if self.probing => {
                    self.pause = (self.pause * 2).min(PAUSE_MAX.as_millis() as u64);
                    self.opened = Some(self.now);
                    self.next = self.now + self.pause;
                    self.probing = false;
                }
                Step::Fail | Step::FailProbe => {}
                Step::Abandon => self.probing = false,
                Step::Heard => {
                    if self.opened.is_some_and(|since| self.now >= since + PAUSE_MIN.as_millis() as u64) {
                        self.next = self.next.min(self.now);
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn it_does_as_its_model_does(steps in proptest::collection::vec(any_step(), 0..60)) {
            let start = Instant::now();
            let (mut breaker, mut model) = (Breaker::default(), Model::default());
            for step in steps {
                model.step(&step);
                let now = start + Duration::from_millis(model.now);
                match step {
                    Step::Wait(_) => {}
                    Step::Probe => { breaker.probe(now); }
                    Step::Succeed => breaker.succeed(),
                    Step::Fail => { breaker.fail(false, now); }
                    Step::FailProbe => { breaker.fail(true, now); }
                    Step::Abandon => breaker.abandon_probe(),
                    Step::Heard => breaker.heard(now),
                }
                prop_assert_eq!(breaker.verdict(now), model.verdict(), "{:?}", model);
            }
        }
    }

    #[test]
    fn one_probe_at_a_time_and_longer_pauses() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        assert_eq!((0..FAILURES_MAX).filter(|_| breaker.fail(false, now)).count(), 1, "it opens once");
        for pause in [250u64, 500, 1_000, 2_000, 4_000, 4_000] {
            assert!(!breaker.probe(now + Duration::from_millis(pause - 1)));
            now += Duration::from_millis(pause);
            assert!(breaker.probe(now) && !breaker.probe(now));
            breaker.fail(true, now);
        }
        breaker.succeed();
        assert_eq!(breaker.verdict(now), Verdict::Closed);
    }
}
