//! The task of a publisher: while this replica leads and there are maps in force, one round after another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use vicinal_common::api::WriteOp;
use vicinal_common::error::Result;
use vicinal_common::exec;
use vicinal_common::ids::{LogIndex, MapDigest};
use vicinal_common::publish::Feed;

use super::limits::Limits;
use super::plan::{Chart, Charts, Dead, FILL_PAGE_BYTES, Page, look, read_page};
use super::round::{Seen, Window};
use super::session::Session;
use super::{Around, Shared, lane, maps};
use crate::node::OpenMap;
use crate::shard::{Died, LoggedWrite, View};

/// How often an idle publisher looks whether it has something to do, if nobody wakes it.
const IDLE: Duration = Duration::from_millis(500);
/// How often one that works looks at the clock, and writes its mark at most.
const TICK: Duration = Duration::from_secs(1);
/// How long a search shard's leader may be out of reach for this node only, before another node leads instead:
/// more than an election takes, during which followers still name the old leader.
const CUT_OFF: Duration = Duration::from_millis(1_500);
/// How often that is tried.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long writing a mark may take.
const MARK: Duration = Duration::from_secs(5);

/// How a session ended.
enum Ended {
    /// The replica does not lead.
    Elsewhere,
    /// There is no map in force any more.
    Finished,
}

/// Runs until the group stops.
pub(super) async fn run(shared: Arc<Shared>, around: Around) {
    let stop = around.group.stopping();
    let shard = around.group.shard().clone();
    while !stop.is_cancelled() {
        let has_targets = || !shard.view().feed().targets.is_empty();
        let leads = around.group.leads();
        if leads && has_targets() {
            let ended = tokio::select! {
                ended = Lead::lead(&shared, &around) => ended,
                () = stop.cancelled() => Ok(Ended::Elsewhere),
            };
            let watched = shard.clone();
            // It waits for entries that are being applied.
            let _ = exec::blocking(move || watched.watch_deaths(false)).await;
            match ended {
                Ok(Ended::Finished) => shared.end(|| Ok(Default::default())),
                Ok(Ended::Elsewhere) => shared.end(|| Err(around.group.led_elsewhere())),
                Err(error) => {
                    tracing::error!(shard = %around.group.id(), %error, "cannot publish; trying again");
                    shared.set_obstacle(Some(error.to_string()));
                    shared.pause();
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = sleep(TICK) => {}
                    }
                }
            }
        } else if leads {
            shared.end(|| Ok(Default::default()));
        } else {
            shared.end(|| Err(around.group.led_elsewhere()));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = shared.wake.notified() => {}
            () = sleep(IDLE) => {}
        }
    }
    shared.end(|| Err(around.group.led_elsewhere()));
}

/// What work beside the rounds ended in.
enum Event {
    Page(Result<Page>),
    Marked(Result<()>),
}

/// A session's part of the task.
struct Lead<'a> {
    shared: &'a Arc<Shared>,
    around: &'a Around,
    lanes: JoinSet<()>,
    opened: BTreeMap<MapDigest, Arc<OpenMap>>,
    /// The maps in force, and the feed that says so.
    charts: Option<(Arc<Feed>, Charts)>,
    /// Deaths by entries that no round has seen yet.
    died: Vec<Died>,
    /// Deaths by entries up to this one may be missing.
    complete_after: LogIndex,
    /// Deaths up to here are dealt with.
    deaths_seen: LogIndex,
    beside: FuturesUnordered<BoxFuture<'static, Event>>,
    is_paging: bool,
    is_marking: bool,
    marked: Instant,
    handed_over: Option<Instant>,
}

impl Lead<'_> {
    async fn lead(shared: &Arc<Shared>, around: &Around) -> Result<Ended> {
        let shard = around.group.shard().clone();
        exec::blocking(move || shard.watch_deaths(true)).await?;
        let feed = around.group.shard().view().feed().clone();
        {
            let mut state = shared.state.lock();
            state.session = Some(Session::new(&feed, Limits::default()));
            shared.is_leading.store(true, Ordering::Relaxed);
        }
        let mut lead = Lead {
            shared,
            around,
            lanes: JoinSet::new(),
            opened: BTreeMap::new(),
            charts: None,
            died: Vec::new(),
            complete_after: LogIndex::default(),
            deaths_seen: feed.published,
            beside: FuturesUnordered::new(),
            is_paging: false,
            is_marking: false,
            marked: Instant::now(),
            handed_over: None,
        };
        lead.run().await
    }

    async fn run(&mut self) -> Result<Ended> {
        let around = self.around;
        let mut applied = around.group.watch_applied();
        loop {
            if !self.around.group.leads() {
                return Ok(Ended::Elsewhere);
            }
            applied.borrow_and_update();
            let view = self.around.group.shard().view();
            if view.feed().targets.is_empty() {
                return Ok(Ended::Finished);
            }
            let charts = tokio::select! {
                charts = self.open_charts(view.feed()) => charts,
                () = around.group.leads_no_more() => return Ok(Ended::Elsewhere),
            };
            // Nothing is looked at before all maps are here: rows would be taken for published that are not.
            let charts = match charts {
                Ok(charts) => charts,
                Err(error) => {
                    self.shared.set_obstacle(Some(error.to_string()));
                    tokio::select! {
                        () = around.group.leads_no_more() => {}
                        () = sleep(TICK) => {}
                    }
                    continue;
                }
            };
            while let Some(Some(event)) = self.beside.next().now_or_never() {
                self.ended(event)?;
            }
            self.begin_beside(&view, &charts);
            let is_busy = self.rounds(&view, &charts).await?;
            self.hand_over().await;
            if is_busy {
                continue;
            }
            tokio::select! {
                changed = applied.changed() => if changed.is_err() {
                    return Ok(Ended::Elsewhere);
                },
                () = self.shared.wake.notified() => {}
                () = self.around.group.leads_no_more() => {}
                Some(event) = self.beside.next(), if !self.beside.is_empty() => self.ended(event)?,
                () = sleep(TICK) => {}
            }
        }
    }

    /// Makes the maps of a feed ready, and the session follow them.
    async fn open_charts(&mut self, feed: &Arc<Feed>) -> Result<Charts> {
        if let Some((_, charts)) = self.charts.as_ref().filter(|(of, _)| Arc::ptr_eq(of, feed)) {
            return Ok(charts.clone());
        }
        let mut charts = Vec::new();
        for target in &feed.targets {
            let map = match self.opened.get(&target.map.digest) {
                Some(map) => map.clone(),
                None => maps::open(self.around, &target.map).await?,
            };
            self.opened.insert(target.map.digest, map.clone());
            charts.push(Chart { target: target.clone(), map });
        }
        self.opened.retain(|digest, _| feed.targets.iter().any(|target| target.map.digest == *digest));
        let charts = Charts::new(charts)?;
        let new = self.shared.with(|session| session.set_targets(feed, &charts)).unwrap_or_default();
        for key in new {
            self.lanes.spawn(lane::run(key, self.shared.clone(), self.around.clone()));
        }
        self.shared.set_obstacle(None);
        self.charts = Some((feed.clone(), charts.clone()));
        Ok(charts)
    }

    /// One round for what is new, and one for those that are behind. Returns whether there was something to do.
    async fn rounds(&mut self, view: &Arc<View>, charts: &Charts) -> Result<bool> {
        let front = self.shared.peek(|session| session.rounds.front(view.applied())).flatten();
        let is_front = front.is_some();
        if let Some(window) = front {
            self.round(view, charts, window).await?;
        }
        let back = self.shared.peek(|session| session.rounds.back()).flatten();
        let is_back = back.is_some();
        if let Some(window) = back {
            self.round(view, charts, window).await?;
        }
        Ok(is_front || is_back)
    }

    async fn round(&mut self, view: &Arc<View>, charts: &Charts, window: Window) -> Result<()> {
        let applied = view.applied();
        // After the view: all deaths that led to it are known. Later ones are for later views.
        let deaths = self.around.group.shard().take_deaths();
        self.died.extend(deaths.died);
        self.complete_after = self.complete_after.max(deaths.complete_after);
        let now = self.died.partition_point(|died| died.index <= applied);
        let died: Vec<Died> = self.died.drain(..now).collect();
        let is_blind = self.complete_after > self.deaths_seen && self.deaths_seen < applied;
        self.deaths_seen = self.deaths_seen.max(applied);
        let (view, charts) = (view.clone(), charts.clone());
        let looked = exec::blocking(move || -> Result<(Seen, Window)> {
            let vector = charts.vector();
            let dead = died
                .into_iter()
                .map(|died| Ok(Dead { id: died.id, version: died.version, vector: died.vector(vector)? }));
            let dead: Vec<Dead> = dead.collect::<Result<_>>()?;
            Ok((look(view.as_ref(), applied, &window, &charts, &dead, is_blind)?, window))
        });
        let (seen, window) = looked.await??;
        self.shared.with(|session| session.take_in(&window, seen, Instant::now()));
        Ok(())
    }

    /// Begins to read a page for filling, or to write a mark, if that is due.
    fn begin_beside(&mut self, view: &Arc<View>, charts: &Charts) {
        let feed = view.feed();
        if !self.is_paging
            && let Some(Some((next, published))) =
                self.shared.peek(|session| session.fill.next().map(|next| (next, session.rounds.published())))
        {
            self.is_paging = true;
            let (view, charts) = (view.clone(), charts.clone());
            let (map, from) = next;
            let read = exec::blocking(move || read_page(view.as_ref(), &charts, map, from, published, FILL_PAGE_BYTES));
            self.beside.push(Box::pin(async move { Event::Page(read.await.and_then(|page| page)) }));
        }
        if !self.is_marking
            && self.marked.elapsed() >= TICK
            && let Some(Some(op)) = self.shared.peek(|session| session.mark(feed))
        {
            self.is_marking = true;
            self.beside.push(Box::pin(mark(self.around.clone(), op)));
        }
    }

    fn ended(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Page(page) => {
                self.is_paging = false;
                let page = page?;
                self.shared.with(|session| {
                    session.fill.send(page, &mut session.rounds);
                    // A page of nothing is there at once.
                    session.fill.settle(&session.rounds);
                    session.signal();
                });
            }
            Event::Marked(result) => {
                (self.is_marking, self.marked) = (false, Instant::now());
                if let Err(error) = result {
                    tracing::debug!(shard = %self.around.group.id(), %error, "a mark was not written");
                }
            }
        }
        Ok(())
    }

    /// Lets another replica lead when only this node cannot reach a search shard's leader.
    async fn hand_over(&mut self) {
        let is_cut_off = self.shared.peek(|session| session.is_cut_off(CUT_OFF)) == Some(true);
        if is_cut_off && self.handed_over.is_none_or(|at| at.elapsed() >= HAND_OVER) {
            self.handed_over = Some(Instant::now());
            let shard = self.around.group.id();
            tracing::warn!(%shard, "a search shard's leader is out of reach: another replica shall lead");
            self.around.group.hand_over().await;
        }
    }
}

async fn mark(around: Around, op: WriteOp) -> Event {
    let spec = around.group.shard().spec();
    let (collection, epoch) = (spec.collection, spec.epoch);
    let write = LoggedWrite { request: around.rng.request_id(), part: 0, collection, epoch, op };
    Event::Marked(around.group.write(write, Instant::now() + MARK).await.map(drop))
}
