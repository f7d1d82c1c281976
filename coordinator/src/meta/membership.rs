//! Who is in the metadata group: taking coordinators in, giving votes, letting replaced ones go.

use std::collections::{BTreeMap, BTreeSet};

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use tokio::time::{Instant, timeout_at};
use vicinal_common::cluster::{Join, Joined};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::NodeId;
use vicinal_common::raft::{CallError, RaftNode};

use super::catalog::Catalog;
use super::network::{READ_INDEX, read_index_here};
use super::quorum::{Member, VOTERS_MAX, next_voters};
use super::raft::MetaTypes;

/// Most members, voters and learners.
const MEMBERS_MAX: usize = 2 * VOTERS_MAX;

impl Catalog {
    /// Returns once this coordinator has applied everything that was agreed on when it was asked, as the leader confirms it.
    /// What another coordinator has answered a client before is visible here afterwards.
    pub async fn catch_up(&self, deadline: Instant) -> Result<()> {
        let group = self.group();
        let none = || Error::Unavailable("the metadata group has no leader at the moment".into());
        let leader = group.leader.ok_or_else(none)?;
        let within = deadline.saturating_duration_since(Instant::now());
        let asked = async {
            if leader == group.node {
                return read_index_here(self.raft()).await;
            }
            let info = group.members.get(&leader).ok_or("the leader is not a known member")?;
            let link = self.inner.network.link(leader.0, info.address.clone());
            link.call(READ_INDEX, &(), within).await.map_err(|error: CallError| error.to_string())
        };
        let late = || Error::Timeout("the leading coordinator did not answer in time".into());
        let index = timeout_at(deadline, asked).await.map_err(|_| late())?.map_err(Error::Unavailable)?;
        self.wait_applied(index, deadline).await
    }

    /// Takes a coordinator in as a learner, or notes its new address; it gets a vote by [`Catalog::settle_voters`]. The
    /// caller has made sure that no other coordinator of its name is alive.
    pub async fn take_in(&self, join: Join) -> Result<Joined> {
        let group = self.group();
        if !self.is_leader() {
            let leader = group.leader.filter(|leader| *leader != group.node);
            let leader = leader.and_then(|leader| group.members.get(&leader)).map(|info| info.address.clone());
            return Ok(Joined::NotLeader { leader });
        }
        let cluster = self.state().cluster;
        let cluster = cluster.ok_or_else(|| Error::Unavailable("the cluster is being founded, try again".into()))?;
        if group.members.get(&join.node) == Some(&join.info) {
            return Ok(Joined::Member { cluster });
        }
        let learners = group.members.iter().filter(|(node, _)| !group.voters.contains(node) && **node != join.node);
        let stale: BTreeSet<u64> =
            learners.filter(|(_, info)| info.name == join.info.name).map(|(node, _)| node.0).collect();
        if group.members.len() - stale.len() >= MEMBERS_MAX {
            return Err(Error::BadInput(format!(
                "the cluster has {MEMBERS_MAX} coordinators, which is the most it takes"
            )));
        }
        if !stale.is_empty() {
            self.change_members(ChangeMembers::RemoveNodes(stale)).await?;
        }
        let node = BTreeMap::from([(join.node.0, join.info)]);
        self.change_members(ChangeMembers::SetNodes(node)).await?;
        Ok(Joined::Member { cluster })
    }

    /// Gives votes where they are due, one step at a time; whether there was a step. Does nothing unless it leads.
    pub async fn settle_voters(&self) -> Result<bool> {
        if !self.is_leader() {
            return Ok(false);
        }
        let (members, voters) = self.members();
        let Some(next) = next_voters(&members, &voters) else { return Ok(false) };
        let names: Vec<&str> = next.iter().filter_map(|node| members.get(node)).map(|member| &*member.name).collect();
        tracing::info!("voting coordinators from now on: {}", names.join(", "));
        let next: BTreeSet<u64> = next.into_iter().map(|node| node.0).collect();
        let added = next.iter().copied().collect();
        // First the new ones in, then the old ones out: `ReplaceAllVoters` does both in one joint step, and those that
        // lose their vote leave the group.
        self.change_members(ChangeMembers::ReplaceAllVoters(added)).await?;
        Ok(true)
    }

    /// Members as the leader sees them, and who of them votes.
    fn members(&self) -> (BTreeMap<NodeId, Member>, BTreeSet<NodeId>) {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let last = metrics.last_log_index.unwrap_or(0);
        let matched = metrics.replication.unwrap_or_default();
        let membership = metrics.membership_config.membership();
        let member = |(id, info): (&u64, &RaftNode)| {
            let index = matched.get(id).and_then(|matched| matched.as_ref()).map(|matched| matched.index);
            let missing = index.map(|index| last.saturating_sub(index));
            (NodeId(*id), Member { name: info.name.clone(), missing })
        };
        (membership.nodes().map(member).collect(), membership.voter_ids().map(NodeId).collect())
    }

    async fn change_members(&self, change: ChangeMembers<u64, RaftNode>) -> Result<()> {
        let unavailable = |text: String| Error::Unavailable(format!("the coordinators have not agreed: {text}"));
        match self.raft().change_membership(change, false).await {
            Ok(_) => Ok(()),
            Err(RaftError::APIError(ClientWriteError::<MetaTypes>::ForwardToLeader(_))) => {
                Err(unavailable("another coordinator leads now, try again".into()))
            }
            Err(error) => Err(unavailable(error.to_string())),
        }
    }
}
