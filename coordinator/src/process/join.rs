//! How a coordinator without data finds its cluster: it founds one, or asks to be taken in.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};
use vicinal_common::cluster::{self, Join, Joined, call};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::ClusterId;
use vicinal_common::raft::RaftNode;
use vicinal_common::transport::{Address, Transport};

use super::ProcessOptions;
use super::edge::GREET;
use crate::meta::{Catalog, Founding};

/// Pause between two rounds of asking.
const PAUSE: Duration = Duration::from_millis(250);
/// How often a coordinator that waits says so.
const REMIND: Duration = Duration::from_secs(15);
/// Longest time of one request to be taken in.
const JOIN: Duration = Duration::from_secs(5);
/// Longest wait for the metadata after it was taken in.
const METADATA: Duration = Duration::from_secs(60);

/// Whether a coordinator without data founds a cluster. With `--bootstrap` alone it does. With `--join` it does so only
/// with `--bootstrap` too, and only when every coordinator named answers and none has a cluster: a founder whose disk was
/// replaced must not found a second cluster beside its own.
pub(super) async fn founding(options: &ProcessOptions, transport: &dyn Transport) -> Result<Founding> {
    if options.join.is_empty() {
        return match options.bootstrap {
            true => Ok(Founding::IfNew),
            false => Err(Error::BadInput(format!(
                "coordinator `{}` has no data: start it with --bootstrap to found a cluster, or with --join and the URL of \
                 a coordinator to be taken in",
                options.name
            ))),
        };
    }
    let mut reminded: Option<Instant> = None;
    loop {
        let greetings = join_all(options.join.iter().map(|address| cluster::greet(transport, address, GREET))).await;
        if greetings.iter().flatten().any(|greeting| greeting.cluster.is_some()) {
            return Ok(Founding::Never);
        }
        let is_nobody_missing = greetings.iter().all(|greeting| matches!(greeting, Ok(found) if found.node.is_none()));
        if options.bootstrap && is_nobody_missing {
            return Ok(Founding::IfNew);
        }
        if reminded.is_none_or(|last| last.elapsed() >= REMIND) {
            reminded = Some(Instant::now());
            let silent = options.join.iter().zip(&greetings).filter(|(_, greeting)| greeting.is_err());
            let silent: Vec<String> = silent.map(|(address, _)| address.to_string()).collect();
            match silent.is_empty() {
                true => tracing::info!("waiting: none of the coordinators named by --join has a cluster yet"),
                false => tracing::info!("waiting: no answer from {}", silent.join(", ")),
            }
        }
        sleep(PAUSE).await;
    }
}

/// Refuses to go on beside coordinators of another cluster, or with data whose place another coordinator of this name has
/// taken. Those that do not answer say nothing.
pub(super) async fn check_others(options: &ProcessOptions, transport: &dyn Transport, catalog: &Catalog) -> Result<()> {
    let (own, group) = (catalog.state().cluster, catalog.group());
    let others = group.members.iter().filter(|(node, _)| **node != group.node).map(|(_, info)| &info.address);
    let ask: BTreeSet<&Address> = options.join.iter().chain(others).collect();
    for greeting in
        join_all(ask.into_iter().map(|address| cluster::greet(transport, address, GREET))).await.into_iter().flatten()
    {
        let name = &options.name;
        if let (Some(own), Some(other)) = (own, greeting.cluster)
            && own != other
        {
            return Err(Error::BadInput(format!(
                "the data of coordinator `{name}` belongs to cluster {own}, coordinator `{}` to cluster {other}",
                greeting.name
            )));
        }
        // The leader knows; others may not have heard yet of one that has just come.
        let is_leader = greeting.node.is_some() && greeting.node == greeting.leader;
        let is_replaced = greeting.members.iter().any(|(node, info)| info.name == *name && *node != group.node);
        let was_member = group.members.contains_key(&group.node);
        if is_leader && was_member && is_replaced && !greeting.members.contains_key(&group.node) {
            return Err(Error::BadInput(format!(
                "another coordinator `{name}` has taken this one's place while its data was away: start it with an empty \
                 data directory"
            )));
        }
    }
    Ok(())
}

/// Has this coordinator taken in, unless it is a member with this address already. Returns once it has the metadata.
pub(super) async fn join(options: &ProcessOptions, transport: &dyn Transport, catalog: &Catalog) -> Result<()> {
    let info = RaftNode { name: options.name.clone(), address: options.advertise.clone() };
    let node = catalog.node();
    let group = catalog.group();
    if group.members.get(&node) == Some(&info) {
        return Ok(());
    }
    let mut ask: Vec<Address> = options.join.clone();
    let known = group.members.into_iter().filter(|(member, _)| *member != node).map(|(_, info)| info.address);
    ask.extend(known.filter(|address| !options.join.contains(address)).collect::<BTreeSet<_>>());
    let join = Join { node, info };
    let cluster = taken_in(&ask, transport, &join).await?;
    tracing::info!("coordinator `{}` is part of cluster {cluster}", options.name);
    let give_up = Instant::now() + METADATA;
    while catalog.state().cluster.is_none() {
        if Instant::now() >= give_up {
            return Err(Error::Unavailable(format!("the metadata did not arrive within {METADATA:?}; start again")));
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn taken_in(ask: &[Address], transport: &dyn Transport, join: &Join) -> Result<ClusterId> {
    let mut told = String::new();
    loop {
        let mut failure = Error::Unavailable("no coordinator to ask: name one with --join".into());
        for address in ask {
            // The leader may be another one.
            let mut next = Some(address.clone());
            for _ in 0..2 {
                let Some(to) = next.take() else { break };
                match cluster::send(transport, &to, call::JOIN, join, JOIN).await {
                    Ok(Joined::Member { cluster }) => return Ok(cluster),
                    Ok(Joined::NotLeader { leader }) => {
                        failure = Error::Unavailable("the metadata group has no leader at the moment".into());
                        next = leader;
                    }
                    Err(error @ (Error::Conflict(_) | Error::BadInput(_))) => return Err(error),
                    Err(error) => failure = error,
                }
            }
        }
        let text = failure.to_string();
        if text != told {
            tracing::info!("waiting to be taken in: {text}");
            told = text;
        }
        sleep(PAUSE).await;
    }
}
