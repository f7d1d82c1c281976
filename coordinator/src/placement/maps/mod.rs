//! Changes of the maps of collections that are routed by cluster: training, balancing, filling, serving, ending.
//!
//! What is to be done next is read from the metadata (`plan`), every step can be repeated, and what this coordinator
//! remembers between attempts only saves work: one that takes over at any point goes on to the same end.

mod balance;
mod clusters;
mod even;
mod plan;
mod send;
mod steps;
mod supply;
#[cfg(test)]
mod tests;
mod train;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use vicinal_common::error::Result;
use vicinal_common::ids::CollectionId;

pub(super) use clusters::wants_clusters;
pub use even::{Action, BalancePlan, plan_balance};
pub(super) use even::{Watches, watched};
pub use plan::POINTS_MIN;
pub(super) use plan::{Todo, todo, waiting};
use steps::{Done, Outcome};
use train::Learned;

use super::reconcile::{PAUSE_FIRST, PAUSE_LONGEST, Reconciler, TICK};
use crate::meta::{Collection, MetaCommand, MetaState};

/// How often home shards are asked how far they have filled a map.
const POLL: Duration = Duration::from_millis(250);
/// Longest pause before a map is trained again that could not be.
const TRAIN_PAUSE_LONGEST: Duration = Duration::from_secs(10);

/// Work on what is to be done, over all attempts.
#[derive(Default)]
struct Work {
    todo: Option<Todo>,
    /// The collection when it was begun.
    before: Option<Arc<Collection>>,
    done: Done,
    learned: Option<Learned>,
}

impl Reconciler {
    /// Works on the maps of one collection until there is nothing left to do, or another coordinator leads. Moves of
    /// replicas go first.
    pub(super) async fn change_maps(self, id: CollectionId) {
        let (mut work, mut pause, mut told) = (Work::default(), PAUSE_FIRST, String::new());
        while self.catalog.is_leader() {
            let state = self.catalog.state();
            let Some(collection) = state.collections.get(&id).cloned() else { return };
            let todo = todo(&collection);
            if work.todo != todo {
                let before = std::mem::take(&mut work);
                if let (Some(Todo::End(_)), Some(before)) = (before.todo, before.before) {
                    self.clean_up(&state, &before, &collection).await;
                }
                (work.todo, work.before) = (todo, Some(collection.clone()));
                pause = PAUSE_FIRST;
            }
            let Some(todo) = todo else { return };
            if self.needs_move(&state, &collection) {
                return;
            }
            let attempt = tokio::select! {
                attempt = self.attempt(&state, &collection, todo, &mut work) => attempt,
                () = self.until_other(id, todo) => continue,
            };
            match attempt {
                Ok(Outcome::Done) => pause = PAUSE_FIRST,
                Ok(Outcome::Waiting) => {
                    pause = PAUSE_FIRST;
                    sleep(POLL).await;
                }
                Err(error) => {
                    let text = error.to_string();
                    if text != told {
                        let name = &collection.name;
                        tracing::warn!("the change of maps of collection `{name}` ({todo:?}) has to wait: {text}");
                        told = text;
                    }
                    sleep(pause).await;
                    let longest = if matches!(todo, Todo::Train(_) | Todo::Balance(_)) {
                        TRAIN_PAUSE_LONGEST
                    } else {
                        PAUSE_LONGEST
                    };
                    pause = (pause * 2).min(longest);
                }
            }
        }
    }

    async fn attempt(
        &self,
        state: &MetaState,
        collection: &Arc<Collection>,
        todo: Todo,
        work: &mut Work,
    ) -> Result<Outcome> {
        let Some(cluster) = collection.routing.cluster() else { return Ok(Outcome::Done) };
        let (id, now_ms) = (collection.id, self.catalog.now_ms());
        match todo {
            Todo::Train(_) => {
                let learned = match work.learned.take() {
                    Some(learned) => learned,
                    None => self.learn(collection, cluster).await?,
                };
                self.begin_learned(collection, work.learned.insert(learned)).await
            }
            Todo::Balance(version) => {
                let learned = match work.learned.take() {
                    Some(learned) => Some(learned),
                    None => self.even_out(collection, cluster).await?,
                };
                let Some(learned) = learned else {
                    tracing::info!("search shards of collection `{}` are as even as they get", collection.name);
                    self.change(MetaCommand::AbortMap { collection: id, version, now_ms }).await?;
                    return Ok(Outcome::Done);
                };
                self.begin_learned(collection, work.learned.insert(learned)).await
            }
            Todo::Fill(_) => self.fill(state, collection, cluster, &mut work.done).await,
            Todo::End(version) => self.end(collection, cluster, version, &mut work.done).await,
            Todo::Abort(version) => {
                self.change(MetaCommand::AbortMap { collection: id, version, now_ms }).await?;
                Ok(Outcome::Done)
            }
            Todo::ServeHomes => self.serve_homes(state, collection, &mut work.done).await,
        }
    }

    async fn begin_learned(&self, collection: &Collection, learned: &Learned) -> Result<Outcome> {
        self.begin(collection, learned).await?;
        self.progress(collection.id, plan::progress::BEGUN).await;
        Ok(Outcome::Done)
    }

    /// Waits until something else is to be done, or another coordinator leads.
    async fn until_other(&self, id: CollectionId, before: Todo) {
        let mut changed = self.catalog.changed();
        loop {
            // Marked as seen before the state is read: a change in between wakes the wait below.
            changed.borrow_and_update();
            let now = self.catalog.state().collections.get(&id).and_then(|collection| todo(collection));
            if now != Some(before) || !self.catalog.is_leader() {
                return;
            }
            tokio::select! {
                alive = changed.changed() => if alive.is_err() { return },
                () = sleep(TICK) => {}
            }
        }
    }
}
