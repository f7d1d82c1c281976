//! All clients of a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::known::Known;
use super::register::RegisterClient;
use super::search::Searcher;
use super::set::SetWriter;
use crate::client::{Client, Site};
use crate::op::Version;

/// Longest time the last operations may take once the clients are told to stop: several answers that do not come.
const STOP_WAIT: Duration = Duration::from_secs(30);
/// Points in one insert of the base.
const BASE_BATCH: usize = 50;

/// Somebody who does one thing after the other.
pub(super) trait Turn: Send + 'static {
    /// Does the next thing.
    fn turn(&mut self, site: &Site) -> impl Future<Output = ()> + Send;
}

/// Clients of one kind, each with its own pace.
#[derive(Clone, Copy, Debug)]
pub struct Tempo {
    /// How many.
    pub clients: u64,
    /// Time from one turn of a client to its next. A turn that takes longer delays the ones after it.
    pub every: Duration,
}

/// What runs.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// Everything that is drawn comes from here.
    pub seed: u64,
    /// Unique inserts.
    pub set: Tempo,
    /// Points of one insert.
    pub batch: u64,
    /// Overwritten points.
    pub register: Tempo,
    /// Searches.
    pub search: Tempo,
}

impl LoadOptions {
    /// What two cores carry beside six processes with room to spare.
    pub fn new(seed: u64) -> LoadOptions {
        let tempo = |clients, millis| Tempo { clients, every: Duration::from_millis(millis) };
        LoadOptions { seed, set: tempo(6, 120), batch: 16, register: tempo(3, 100), search: tempo(3, 60) }
    }
}

/// Running clients.
pub struct Load {
    is_told_to_stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    /// Writes `n` points that are everywhere before anything goes wrong; they are part of the history.
    pub async fn base(site: &Arc<Site>, n: u64) -> anyhow::Result<Vec<Version>> {
        let first = site.serials(n);
        let versions: Vec<Version> = (first..first + n).map(|serial| Version { id: serial, serial }).collect();
        let mut client = Client::new(site, 0);
        for batch in versions.chunks(BASE_BATCH) {
            if !client.write(batch.to_vec()).await {
                let last = site.history.records().pop();
                anyhow::bail!("a quiet cluster refused a write: {last:?}");
            }
        }
        Ok(versions)
    }

    /// Starts the clients.
    pub fn start(site: &Arc<Site>, options: LoadOptions, base: &[Version]) -> Load {
        let mut rng = StdRng::seed_from_u64(options.seed);
        let known = Arc::new(Known::of(base));
        let mut load = Load { is_told_to_stop: Arc::default(), tasks: Vec::new() };
        for slot in 0..options.set.clients {
            let (client, rng, known) = (Client::new(site, slot as usize), rng.fork(), known.clone());
            let writer = SetWriter { client, known, rng, batch: options.batch, turns: 0 };
            load.spawn(site, options.set.every, writer);
        }
        for slot in 0..options.register.clients {
            let register = RegisterClient { client: Client::new(site, slot as usize), slot, turns: 0 };
            load.spawn(site, options.register.every, register);
        }
        for slot in 0..options.search.clients {
            let (client, rng, known) = (Client::new(site, slot as usize), rng.fork(), known.clone());
            load.spawn(site, options.search.every, Searcher { client, known, rng, base: base.len() });
        }
        load
    }

    fn spawn(&mut self, site: &Arc<Site>, every: Duration, mut actor: impl Turn) {
        let (site, is_told_to_stop) = (site.clone(), self.is_told_to_stop.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !is_told_to_stop.load(Ordering::Relaxed) {
                ticks.tick().await;
                actor.turn(&site).await;
            }
        }));
    }

    /// Lets every client finish what it does.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.is_told_to_stop.store(true, Ordering::Relaxed);
        for task in &mut self.tasks {
            timeout(STOP_WAIT, task).await??;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}
