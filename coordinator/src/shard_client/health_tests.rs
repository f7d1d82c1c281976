//! Health against a simple model, and what a paused, a failing and a slow node come to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;
use vicinal_common::ids::NodeId;

use super::health::{Blame, Ended, Health, Ticket, Tier};
use super::latency::{Work, WorkKind};

fn search() -> Work {
    Work::new(WorkKind::Search, 1)
}

const N: NodeId = NodeId(1);

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[derive(Clone, Debug)]
enum Step {
    Wait(u64),
    Begin(u64),
    End(u64, Ended),
    Overdue(u64),
    Heard(u64),
    Left(u64),
    Drop(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    let node = 0u64..3;
    prop_oneof![
        (0u64..1_500).prop_map(Step::Wait),
        node.clone().prop_map(Step::Begin),
        node.clone().prop_map(Step::Begin),
        (node.clone(), prop_oneof![Just(Ended::Answered), Just(Ended::Failed), Just(Ended::Failed)])
            .prop_map(|(node, how)| Step::End(node, how)),
        node.clone().prop_map(Step::Overdue),
        node.clone().prop_map(Step::Heard),
        node.clone().prop_map(Step::Left),
        node.prop_map(Step::Drop),
    ]
}

/// What must be true of a node without looking at how it is kept.
#[derive(Debug, Default)]
struct Model {
    in_flight: usize,
    heard: Option<u64>,
    leaving: bool,
    row: u32,
}

proptest! {
    #[test]
    fn it_agrees_with_a_simple_model(steps in proptest::collection::vec(any_step(), 0..80)) {
        let health = Arc::new(Health::default());
        let start = Instant::now();
        let mut millis = 0;
        let mut models: BTreeMap<u64, Model> = (0..3).map(|node| (node, Model::default())).collect();
        let mut tickets: BTreeMap<u64, Vec<Ticket>> = BTreeMap::new();
        for step in steps {
            let now = start + ms(millis);
            match step {
                Step::Wait(more) => millis += more,
                Step::Begin(node) => {
                    let ticket = health.begin(NodeId(node), search(), Blame::Node, now);
                    tickets.entry(node).or_default().push(ticket);
                    models.get_mut(&node).unwrap().in_flight += 1;
                }
                Step::End(node, how) => {
                    let Some(ticket) = tickets.entry(node).or_default().pop() else { continue };
                    ticket.end(how, now);
                    let model = models.get_mut(&node).unwrap();
                    model.in_flight -= 1;
                    model.row = if how == Ended::Answered { 0 } else { model.row + 1 };
                }
                Step::Overdue(node) => {
                    let Some(ticket) = tickets.entry(node).or_default().last_mut() else { continue };
                    ticket.overdue(now);
                    models.get_mut(&node).unwrap().row += 1;
                }
                Step::Heard(node) => {
                    health.heard(NodeId(node), now);
                    let model = models.get_mut(&node).unwrap();
                    (model.heard, model.leaving) = (Some(millis), false);
                }
                Step::Left(node) => {
                    health.left(NodeId(node));
                    models.get_mut(&node).unwrap().leaving = true;
                }
                Step::Drop(node) => {
                    if tickets.entry(node).or_default().pop().is_some() {
                        models.get_mut(&node).unwrap().in_flight -= 1;
                    }
                }
            }
            let now = start + ms(millis);
            for (node, model) in &models {
                let standing = health.standing(NodeId(*node), search(), now);
                let suspect = model.leaving || model.heard.is_some_and(|at| millis - at > 2_000);
                prop_assert_eq!(health.suspect_at(NodeId(*node), now), suspect);
                if suspect {
                    prop_assert!(standing.tier >= Tier::Suspect);
                }
                // The model counts at least as many failures in a row as the node is blamed for.
                if model.row < 3 {
                    prop_assert!(standing.tier <= Tier::Suspect, "{:?} {:?}", standing, model);
                }
                prop_assert!(standing.cost >= 100 * (model.in_flight as u64 + 1));
            }
        }
    }
}

#[test]
fn a_failing_node_is_given_up_and_found_again_by_one_probe() {
    let (health, now) = (Arc::new(Health::default()), Instant::now());
    for _ in 0..3 {
        assert_eq!(health.standing(N, search(), now).tier, Tier::Fine);
        health.begin(N, search(), Blame::Node, now).end(Ended::Failed, now);
    }
    assert_eq!(health.standing(N, search(), now).tier, Tier::Open);
    let later = now + ms(300);
    assert_eq!(health.standing(N, search(), later).tier, Tier::HalfOpen);
    let probe = health.begin(N, search(), Blame::Node, later);
    assert_eq!(health.standing(N, search(), later).tier, Tier::Open, "one probe is enough");
    probe.end(Ended::Answered, later);
    assert_eq!(health.standing(N, search(), later).tier, Tier::Fine);
    assert_eq!((health.counters().breaker_openings(), health.counters().probes()), (1, 1));
}

#[test]
fn a_heartbeat_ends_a_long_pause() {
    let (health, mut now) = (Arc::new(Health::default()), Instant::now());
    for _ in 0..3 {
        health.begin(N, search(), Blame::Node, now).end(Ended::Failed, now);
    }
    for _ in 0..6 {
        now += ms(5_000);
        health.begin(N, search(), Blame::Node, now).end(Ended::Failed, now);
    }
    assert_eq!(health.standing(N, search(), now + ms(1_000)).tier, Tier::Open);
    health.heard(N, now + ms(1_000));
    assert_eq!(health.standing(N, search(), now + ms(1_000)).tier, Tier::HalfOpen);
}

#[test]
fn a_late_answer_counts_against_a_silent_node_only() {
    let (health, now) = (Arc::new(Health::default()), Instant::now());
    let mut heavy: Vec<Ticket> = (0..5).map(|_| health.begin(N, search(), Blame::Node, now)).collect();
    health.begin(N, search(), Blame::Node, now).end(Ended::Answered, now + ms(10));
    heavy.iter_mut().for_each(|ticket| ticket.overdue(now + ms(600)));
    assert_eq!(health.standing(N, search(), now + ms(600)).tier, Tier::Fine);
    let mut others: Vec<Ticket> = (0..5).map(|_| health.begin(N, search(), Blame::Others, now + ms(600))).collect();
    others.iter_mut().for_each(|ticket| ticket.overdue(now + ms(1_200)));
    assert_eq!(health.standing(N, search(), now + ms(1_200)).tier, Tier::Fine);
    let mut silent: Vec<Ticket> = (0..3).map(|_| health.begin(N, search(), Blame::Node, now + ms(1_200))).collect();
    silent.iter_mut().for_each(|ticket| ticket.overdue(now + ms(1_800)));
    assert_eq!(health.standing(N, search(), now + ms(1_800)).tier, Tier::Open);
    silent.pop().unwrap().end(Ended::Answered, now + ms(1_900));
    assert_eq!(health.standing(N, search(), now + ms(1_900)).tier, Tier::Fine, "a late answer is an answer");
}

#[test]
fn load_and_latency_decide_and_old_slowness_is_forgiven() {
    let (health, now) = (Arc::new(Health::default()), Instant::now());
    let other = NodeId(2);
    health.begin(N, search(), Blame::Node, now).end(Ended::Answered, now + ms(50));
    health.begin(other, search(), Blame::Node, now).end(Ended::Answered, now + ms(2));
    let cost = |node, at| health.standing(node, search(), at).cost;
    assert!(cost(N, now + ms(50)) > 10 * cost(other, now + ms(50)));
    let _held: Vec<Ticket> = (0..4).map(|_| health.begin(other, search(), Blame::Node, now + ms(50))).collect();
    assert!(cost(other, now + ms(50)) > 9_000, "five times two milliseconds, a little faded");
    assert!(cost(N, now + ms(60_000)) <= 1_000);
    assert_eq!(health.attempt_time(N, search()), Duration::from_secs(1), "one sample says nothing of the slowest");
    for _ in 0..100 {
        health.begin(N, search(), Blame::Node, now).end(Ended::Answered, now + ms(400));
    }
    assert!((ms(1_600)..ms(2_001)).contains(&health.attempt_time(N, search())));
    for _ in 0..4_000 {
        health.begin(N, search(), Blame::Node, now).end(Ended::Answered, now + ms(1));
    }
    assert_eq!(health.attempt_time(N, search()), ms(500));
}

#[test]
fn a_node_never_heard_of_is_not_suspect() {
    let (health, now) = (Health::default(), Instant::now());
    assert!(!health.suspect(N));
    health.heard(N, now);
    assert!(!health.suspect_at(N, now + ms(2_000)) && health.suspect_at(N, now + ms(2_001)));
    health.left(N);
    assert!(health.suspect_at(N, now));
    health.heard(N, now + ms(2_001));
    assert!(!health.suspect_at(N, now + ms(2_001)));
    health.retain(|_| false);
    assert!(!health.suspect_at(N, now + ms(60_000)));
}
