//! One simulated cluster with its clients, and time that passes in it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use turmoil::Sim;
use vicinal_common::disk::{Disk, Fault as DiskFault};

use super::check::Checker;
use super::client::{Client, Work};
use super::plan::{CLIENTS, Direction, Fault, Plan};
use super::site::{Links, Site, epoch};
use super::trace::Trace;
use super::{entropy, processes};

const TICK: Duration = Duration::from_millis(1);
/// Longest time until the first write is acknowledged.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest time from asking the clients to end until they have.
const END_MAX: Duration = Duration::from_secs(30);
/// Longest time of the checks at the end.
const CHECK_MAX: Duration = Duration::from_secs(300);
/// How long a disk that is to fail may go without an operation before its power goes anyway.
const CUT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A simulation under way.
pub(super) struct World<'a> {
    sim: Sim<'a>,
    plan: Plan,
    servers: Vec<Arc<Site>>,
    links: Arc<Links>,
    pub(super) trace: Arc<Trace>,
    pub(super) work: Arc<Work>,
    seed: u64,
    /// Why the run proves nothing, if so.
    pub(super) inconclusive: Option<String>,
}

impl World<'_> {
    /// The cluster of a seed, about to start.
    pub(super) fn new<'a>(seed: u64, plan: Plan) -> World<'a> {
        let mut sim = turmoil::Builder::new()
            .rng_seed(seed)
            .epoch(epoch())
            .simulation_duration(Duration::from_secs(3_600))
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(plan.latency_max)
            .tcp_capacity(4_096)
            .enable_random_order()
            .build();
        let (links, trace, work) = (Arc::<Links>::default(), Arc::new(Trace::new()), Arc::<Work>::default());
        let mut random = seed;
        let mut site = |name| Site::new(name, entropy::next(&mut random), links.clone(), trace.clone());
        let mut servers = Vec::new();
        let first = plan.coordinators[0];
        for name in plan.coordinators {
            let site = site(name);
            servers.push(site.clone());
            sim.host(*name, move || processes::coordinator(site.clone(), first));
        }
        for name in plan.nodes {
            let (site, coordinators) = (site(name), plan.coordinators.to_vec());
            servers.push(site.clone());
            sim.host(*name, move || processes::shard_node(site.clone(), coordinators.clone()));
        }
        for (number, name) in (1..).zip(CLIENTS) {
            let client =
                Client::new(site(name), number, plan.coordinators.to_vec(), work.clone(), seed ^ (number << 32));
            let (work, layout) = (work.clone(), plan.layout());
            work.is_clustered.store(plan.is_clustered, Ordering::Relaxed);
            sim.client(name, async move {
                if number == 1 {
                    client.create_collection(&layout).await;
                    work.is_ready.store(true, Ordering::Relaxed);
                }
                client.run().await;
                Ok(())
            });
        }
        World { sim, plan, servers, links, trace, work, seed, inconclusive: None }
    }

    /// Virtual time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Lets the faults come, heals them, and checks. An error is a process that ended by itself, or took too long.
    pub(super) fn run(&mut self) -> Result<(), String> {
        let begun = |world: &World<'_>| world.work.model.counts().writes >= 20;
        if !self.step_until(START_MAX, begun)? {
            return Err(format!("no 20 writes were acknowledged within {START_MAX:?}"));
        }
        let faults = self.plan.faults.clone();
        for (pause, fault) in faults {
            self.step_for(pause)?;
            self.note(format_args!("{fault:?}"));
            self.carry_out(fault)?;
        }
        let healed_at = self.work.model.counts().writes;
        let recovered = |world: &World<'_>| world.work.model.counts().writes >= healed_at + 20;
        if !self.step_until(START_MAX, recovered)? {
            return Err(format!("no 20 writes were acknowledged within {START_MAX:?} after all was healed"));
        }
        self.work.is_over.store(true, Ordering::Relaxed);
        if !self.step_until_done(END_MAX)? {
            return Err("a client has not ended".into());
        }
        self.check()
    }

    fn check(&mut self) -> Result<(), String> {
        let site = Site::new("checker", self.seed, self.links.clone(), self.trace.clone());
        let coordinators = self.servers.iter().take(self.plan.coordinators.len()).cloned().collect();
        let all = self.plan.coordinators.to_vec();
        let client = Client::new(site.clone(), 0, all, self.work.clone(), self.seed);
        let nodes = self.plan.is_replicated.then_some(self.plan.nodes.len());
        let (is_clustered, work) = (self.plan.is_clustered, self.work.clone());
        let checker = Checker { site, coordinators, client, nodes, is_clustered, work };
        self.sim.client("checker", async move {
            checker.run().await;
            Ok(())
        });
        match self.step_until_done(CHECK_MAX)? {
            true => Ok(()),
            false => Err(format!("the checks took more than {CHECK_MAX:?}")),
        }
    }

    fn carry_out(&mut self, fault: Fault) -> Result<(), String> {
        let lost = self.links.lost();
        match fault {
            Fault::Apart { victim, lasts } => {
                self.cut(victim, self.plan.coordinators, Direction::Both);
                self.step_for(lasts)?;
                self.heal(victim, lost);
            }
            Fault::Partition { victim, direction, lasts } => {
                self.cut_off(victim, direction);
                self.step_for(lasts)?;
                self.heal(victim, lost);
            }
            Fault::Crash { victim, operations, lasts } => {
                self.cut_power(victim, operations)?;
                self.step_for(lasts)?;
                self.restart(victim);
            }
            Fault::Wipe { victim, lasts } => {
                self.cut_power(victim, 0)?;
                self.step_for(lasts)?;
                self.wipe(victim)?;
                self.restart(victim);
            }
            Fault::Both { cut_off, crashed, operations, lasts } => {
                self.cut_off(cut_off, Direction::Both);
                self.cut_power(crashed, operations)?;
                self.step_for(lasts)?;
                self.restart(crashed);
                self.step_for(lasts)?;
                self.heal(cut_off, lost);
            }
        }
        Ok(())
    }

    fn cut_off(&self, victim: &'static str, direction: Direction) {
        let others: Vec<&'static str> = self.servers.iter().map(|site| site.name).collect();
        self.cut(victim, &others, direction);
    }

    fn cut(&self, victim: &'static str, others: &[&'static str], direction: Direction) {
        for other in others.iter().copied().filter(|name| *name != victim) {
            if direction != Direction::In {
                self.sim.partition_oneway(victim, other);
                self.links.cut(victim, other);
            }
            if direction != Direction::Out {
                self.sim.partition_oneway(other, victim);
                self.links.cut(other, victim);
            }
        }
    }

    /// Joins the victim to the others again. Nothing lost since the partition began means that it proved nothing.
    fn heal(&mut self, victim: &'static str, lost: u64) {
        for other in self.servers.iter().map(|site| site.name).filter(|name| *name != victim) {
            self.sim.repair(victim, other);
        }
        self.links.heal();
        let lost = self.links.lost() - lost;
        self.note(format_args!("healed {victim}, {lost} calls were lost"));
        if lost == 0 {
            self.inconclusive = Some(format!("nothing was lost while {victim} was cut off"));
        }
    }

    fn site(&self, name: &str) -> Arc<Site> {
        let found = self.servers.iter().find(|site| site.name == name);
        found.expect("a plan names machines that exist").clone()
    }

    fn cut_power(&mut self, victim: &'static str, operations: u64) -> Result<(), String> {
        let site = self.site(victim);
        let at = |operations| DiskFault::Cut { operations };
        site.disk.inject(at(site.disk.operations() + operations)).map_err(|e| e.to_string())?;
        let is_by_itself = self.step_until(CUT_WAIT_MAX, |_| site.disk.is_off())?;
        if !is_by_itself {
            site.disk.inject(at(0)).map_err(|e| e.to_string())?;
            // The operation at which the power goes; it fails.
            let _ = site.disk.sync_dir("/".as_ref());
        }
        self.sim.crash(victim);
        self.note(format_args!("{victim} is down after {} operations", site.disk.operations()));
        Ok(())
    }

    fn wipe(&self, victim: &str) -> Result<(), String> {
        let site = self.site(victim);
        site.disk.reboot();
        let wiped = site.disk.remove_dir_all(processes::DATA.as_ref()).and_then(|()| site.disk.sync_dir("/".as_ref()));
        wiped.map_err(|e| format!("the disk of {victim} cannot be wiped: {e}"))
    }

    fn restart(&mut self, victim: &'static str) {
        self.site(victim).disk.reboot();
        self.sim.bounce(victim);
        self.note(format_args!("{victim} is started again"));
    }

    fn note(&self, event: std::fmt::Arguments<'_>) {
        self.trace.note(self.sim.elapsed(), event);
    }

    fn step(&mut self) -> Result<bool, String> {
        self.sim.step().map_err(|e| e.to_string())
    }

    fn step_for(&mut self, time: Duration) -> Result<(), String> {
        self.step_until(time, |_| false).map(drop)
    }

    fn step_until(&mut self, longest: Duration, is_done: impl Fn(&World<'_>) -> bool) -> Result<bool, String> {
        let end = self.sim.elapsed() + longest;
        while self.sim.elapsed() < end {
            if is_done(self) {
                return Ok(true);
            }
            self.step()?;
        }
        Ok(is_done(self))
    }

    /// Goes on until all clients have ended.
    fn step_until_done(&mut self, longest: Duration) -> Result<bool, String> {
        let end = self.sim.elapsed() + longest;
        while self.sim.elapsed() < end {
            if self.step()? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
