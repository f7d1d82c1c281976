//! Keeps a group's raft running: starts it from the log, stops it on request, starts it again after a full disk.

use std::sync::Arc;
use std::time::Duration;

use openraft::Config;
use openraft::async_runtime::watch::WatchReceiver;
use tokio::time::{MissedTickBehavior, interval, sleep};
use vicinal_common::error::Result;
use vicinal_common::raft::{NetworkFactory, shard_config};

use super::ROUTE_PREFIX;
use super::fault::FaultKind;
use super::group::{Group, Raft, State};
use super::machine::{Machine, on_blocking_thread};
use super::transfer::FileSender;

/// How often the committed position is saved and the length of the log is looked at.
const TICK: Duration = Duration::from_secs(1);
/// How often raft is started again after an error that nobody can name, before the replica gives up.
const RESTARTS_MAX: u32 = 5;
/// First pause before such a restart; it doubles.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// A raft that ran this long counts as started.
const GOOD_RUN: Duration = Duration::from_secs(60);

/// Runs the group until it is stopped or fails for good.
pub(super) async fn supervise(group: Arc<Group>) {
    let shard = group.id();
    let mut restarts = 0;
    while !group.stop.is_cancelled() {
        let began = tokio::time::Instant::now();
        let error = match start(&group).await {
            Ok(raft) => {
                group.state.send_replace(State::Up(raft.clone()));
                let error = run(&group, &raft).await;
                group.store.save_pending();
                if let Err(e) = raft.shutdown().await {
                    tracing::warn!(%shard, error = %e, "raft did not end cleanly");
                }
                error
            }
            Err(error) => Some(error),
        };
        let Some(error) = error else { break };
        // The storage knows better than raft what went wrong.
        let (kind, words) = group.fault.take().unwrap_or((FaultKind::Unknown, error));
        if let Some(words) = group.parts.shard.failure() {
            // It applies nothing any more, so raft cannot run on it. What it holds can still be read.
            tracing::error!(%shard, reason = %words, "the replica takes no part any more until the node is restarted");
            group.state.send_replace(State::Down(words));
            return;
        }
        if began.elapsed() > GOOD_RUN {
            restarts = 0;
        }
        match kind {
            FaultKind::DiskFull => {
                tracing::warn!(%shard, reason = %words, "the replica waits for room on the disk");
                group.state.send_replace(State::Down(words));
                wait_for_room(&group).await;
            }
            FaultKind::Unknown if restarts < RESTARTS_MAX => {
                tracing::warn!(%shard, reason = %words, "raft has stopped and is started again");
                group.state.send_replace(State::Down(words));
                let pause = RESTART_PAUSE * 2u32.pow(restarts);
                restarts += 1;
                tokio::select! {
                    () = sleep(pause) => {}
                    () = group.stop.cancelled() => {}
                }
            }
            FaultKind::Unknown | FaultKind::Final => {
                tracing::error!(%shard, reason = %words, "the replica has stopped");
                group.state.send_replace(State::Failed(words));
                return;
            }
        }
    }
    group.state.send_replace(State::Failed("the node is shutting down".into()));
}

async fn wait_for_room(group: &Group) {
    loop {
        tokio::select! {
            () = sleep(TICK) => {}
            () = group.stop.cancelled() => return,
        }
        if group.parts.room.check().is_ok() {
            return;
        }
    }
}

/// Builds raft on the shard and its log. Replays what is known to be committed before it returns.
async fn start(group: &Group) -> Result<Raft, String> {
    let parts = &group.parts;
    settle(group).await.map_err(|e| e.to_string())?;
    // Purging follows the shard's manifests and the other replicas, see `maintain`; raft must not purge by itself.
    let config = Config { max_in_snapshot_log_to_keep: u64::MAX, ..(*shard_config()).clone() };
    let prefix = format!("{ROUTE_PREFIX}{}", group.id());
    let sender = FileSender { disk: parts.disk.clone(), rng: parts.rng.clone() };
    let network = NetworkFactory::new(parts.transport.clone(), &prefix, sender);
    let machine = Machine {
        shard: parts.shard.clone(),
        disk: parts.disk.clone(),
        fault: group.fault.clone(),
        refuse_gaps: true,
        applied: group.applied.clone(),
    };
    let raft = Raft::new(parts.node.0, Arc::new(config), network, group.store.clone(), machine);
    raft.await.map_err(|e| e.to_string())
}

/// A follower may have applied entries that the majority committed while its own log lost them to a full disk. Raft
/// will then purge its log up to what is applied, which must be durable in the shard before.
async fn settle(group: &Group) -> Result<()> {
    let next = group.parts.log.bounds()?.next;
    let applied = *group.applied.borrow();
    let durable = group.parts.shard.durable().map(|mark| mark.index);
    if applied.is_some_and(|applied| applied.0 >= next) && durable < applied {
        let shard = group.parts.shard.clone();
        let flushed = on_blocking_thread(move || shard.flush_blocking()).await;
        flushed.inspect_err(|e| group.fault.note(e))?;
    }
    Ok(())
}

/// Serves until the group is asked to stop (`None`) or raft ends by itself (why).
async fn run(group: &Group, raft: &Raft) -> Option<String> {
    let mut metrics = raft.metrics();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let recovery = raft.wait_for_recovery(None);
    tokio::pin!(recovery);
    loop {
        let recovered = *group.recovered.borrow();
        tokio::select! {
            () = group.stop.cancelled() => return None,
            result = &mut recovery, if !recovered => {
                if let Err(e) = result {
                    return Some(stopped(raft).unwrap_or_else(|| e.to_string()));
                }
                group.recovered.send_replace(true);
            }
            changed = metrics.changed() => {
                if let Some(words) = stopped(raft) {
                    return Some(words);
                }
                if changed.is_err() {
                    return Some("raft has ended".into());
                }
            }
            () = group.wake.notified() => group.maintain(raft).await,
            _ = tick.tick() => {
                group.store.save_pending();
                group.step_aside().await;
                group.maintain(raft).await;
            }
        }
    }
}

fn stopped(raft: &Raft) -> Option<String> {
    raft.metrics().borrow_watched().running_state.as_ref().err().map(|e| e.to_string())
}
