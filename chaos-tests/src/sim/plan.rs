//! What a seed decides before the first step: the size of the cluster, its network, and the faults in their order.

use std::time::Duration;

use serde_json::{Value, json};

use super::{entropy, maps};

/// The shard nodes, of which the last one is there when each node gets a replica.
const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// One seed of so many has a collection with a replica on each node: three vote and one learns.
const REPLICATED_EVERY: u64 = 4;
/// Which one: none that failed once with a replication factor.
const REPLICATED: u64 = 2;
/// One seed of so many has a collection routed by cluster, whose maps are trained again and again.
const CLUSTERED_EVERY: u64 = 4;
/// Which one.
const CLUSTERED: u64 = 1;
/// Of these so many have a spare node.
const SPARE_EVERY: u64 = 8;
/// The coordinators, of which the first ones exist.
pub(super) const COORDINATORS: [&str; 3] = ["c1", "c2", "c3"];
/// The clients.
pub(super) const CLIENTS: [&str; 3] = ["u1", "u2", "u3"];

/// Which way is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Both,
    /// Nothing gets out of the victim.
    Out,
    /// Nothing gets in.
    In,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A server is cut off from the other servers for a while.
    Partition { victim: &'static str, direction: Direction, lasts: Duration },
    /// A server loses its power after some more disk operations, and stays down for a while.
    Crash { victim: &'static str, operations: u64, lasts: Duration },
    /// A coordinator is cut off from the other coordinators for a while, not from shard nodes: what it knows grows old.
    Apart { victim: &'static str, lasts: Duration },
    /// A shard node loses its disk, and comes back with an empty one: its replicas move to what it is then.
    Wipe { victim: &'static str, lasts: Duration },
    /// A server loses its power while another one is cut off.
    Both { cut_off: &'static str, crashed: &'static str, operations: u64, lasts: Duration },
}

/// A whole simulation, drawn from its seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) coordinators: &'static [&'static str],
    pub(super) nodes: &'static [&'static str],
    pub(super) shards: u32,
    /// There is one shard, with a replica on each node.
    pub(super) is_replicated: bool,
    /// Points have copies in search shards.
    pub(super) is_clustered: bool,
    pub(super) latency_max: Duration,
    /// Longest time that a piece of work off the async threads takes.
    pub(super) work_max: Duration,
    /// The faults, each preceded by a pause.
    pub(super) faults: Vec<(Duration, Fault)>,
}

struct Draw(u64);

impl Draw {
    fn below(&mut self, below: u64) -> u64 {
        entropy::next(&mut self.0) % below
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }
}

impl Plan {
    /// What the body that creates the collection says of shards and replicas.
    pub(super) fn layout(&self) -> Value {
        if self.is_replicated {
            return json!({"routing": {"method": "replicate"}});
        }
        let mut layout = json!({"shard_number": self.shards, "replication_factor": 3});
        if self.is_clustered {
            layout["routing"] = maps::by_cluster(2)["routing"].take();
        }
        layout
    }

    /// The plan of a seed. There is at least one partition and one crash of a shard node in it.
    pub(super) fn draw(seed: u64) -> Plan {
        let mut draw = Draw(seed);
        let coordinators = &COORDINATORS[..draw.of(&[1, 2, 3, 3])];
        // Not drawn: what seeds decide otherwise stays as it was.
        let is_replicated = seed % REPLICATED_EVERY == REPLICATED;
        let is_clustered = seed % CLUSTERED_EVERY == CLUSTERED;
        let has_spare = is_replicated || (is_clustered && seed % SPARE_EVERY == CLUSTERED);
        let nodes = if has_spare { &NODES[..] } else { &NODES[..3] };
        let servers: Vec<&'static str> = nodes.iter().chain(coordinators).copied().collect();
        let mut faults = vec![draw.partition(nodes), draw.crash(nodes)];
        for _ in 0..1 + draw.below(4) {
            let more = match draw.below(5) {
                0 | 1 => draw.partition(&servers),
                2 | 3 => draw.crash(&servers),
                _ => draw.both(nodes),
            };
            faults.push(more);
        }
        // In any order.
        for last in (1..faults.len()).rev() {
            let other = draw.below(last as u64 + 1) as usize;
            faults.swap(last, other);
        }
        let mut plan = Plan {
            coordinators,
            nodes,
            is_replicated,
            is_clustered,
            shards: 1 + draw.below(3) as u32,
            latency_max: draw.of(&[2, 5, 20, 60].map(Duration::from_millis)),
            work_max: draw.of(&[1, 3, 10, 30].map(Duration::from_millis)),
            faults: faults.into_iter().map(|fault| (draw.millis(1_500, 3_000), fault)).collect(),
        };
        if is_clustered {
            // One at most: what was acknowledged is on two disks of three.
            let wipe = Fault::Wipe { victim: draw.of(nodes), lasts: draw.millis(500, 2_000) };
            let mut more = vec![wipe];
            if coordinators.len() > 1 {
                more.push(Fault::Apart { victim: draw.of(coordinators), lasts: draw.millis(3_000, 6_000) });
            }
            for fault in more {
                let place = draw.below(plan.faults.len() as u64 + 1) as usize;
                plan.faults.insert(place, (draw.millis(1_500, 3_000), fault));
            }
        }
        plan
    }
}

impl Draw {
    fn partition(&mut self, of: &[&'static str]) -> Fault {
        let direction = self.of(&[Direction::Both, Direction::Both, Direction::Out, Direction::In]);
        Fault::Partition { victim: self.of(of), direction, lasts: self.millis(1_500, 5_000) }
    }

    fn crash(&mut self, of: &[&'static str]) -> Fault {
        Fault::Crash { victim: self.of(of), operations: self.below(60), lasts: self.millis(500, 4_000) }
    }

    fn both(&mut self, of: &[&'static str]) -> Fault {
        let count = of.len() as u64;
        let cut_off = self.below(count);
        let crashed = (cut_off + 1 + self.below(count - 1)) % count;
        Fault::Both {
            cut_off: of[cut_off as usize],
            crashed: of[crashed as usize],
            operations: self.below(60),
            lasts: self.millis(1_500, 4_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_plan_has_a_partition_and_a_crash_and_is_drawn_alike_twice() {
        for seed in 0..200 {
            let plan = Plan::draw(seed);
            let faults: Vec<Fault> = plan.faults.iter().map(|(_, fault)| *fault).collect();
            assert!(faults.iter().any(|fault| matches!(fault, Fault::Partition { .. })), "{plan:?}");
            assert!(faults.iter().any(|fault| matches!(fault, Fault::Crash { .. })), "{plan:?}");
            assert_eq!(plan.faults, Plan::draw(seed).faults);
        }
    }
}
