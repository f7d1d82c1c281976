//! The sending side: one group's network over [`Transport`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{OptionalSend, RaftTypeConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::RaftNode;
use super::wire::{call, decode_answer, encode_request};
use crate::transport::{Address, Transport, TransportError};

/// Least time an append of entries may take. openraft offers one heartbeat interval only, which megabytes of entries
/// and their sync can exceed; heartbeats have a client of their own and keep to it.
const APPEND_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause before a member that could not be reached is tried again: first and longest.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_LONGEST: Duration = Duration::from_millis(500);

/// The type configurations of this project's groups.
pub trait GroupConfig: RaftTypeConfig<NodeId = u64, Node = RaftNode> {}

impl<C: RaftTypeConfig<NodeId = u64, Node = RaftNode>> GroupConfig for C {}

/// Why a call to another member brought no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Certainly not carried out; try again after a pause.
    #[error("{0}")]
    Unreachable(String),
    /// It is not known whether it was carried out.
    #[error("{0}")]
    Unknown(String),
    /// The member answered that it cannot (stopped, another member, another version); try again after a pause.
    #[error("{address}: {message}")]
    Remote {
        /// The member's address.
        address: Address,
        /// What it said.
        message: String,
    },
}

impl From<TransportError> for CallError {
    fn from(error: TransportError) -> CallError {
        match &error {
            TransportError::Unreachable(..) => CallError::Unreachable(error.to_string()),
            TransportError::Unknown(..) => CallError::Unknown(error.to_string()),
        }
    }
}

impl<C: RaftTypeConfig> From<CallError> for RPCError<C> {
    fn from(error: CallError) -> RPCError<C> {
        match error {
            CallError::Unreachable(_) | CallError::Remote { .. } => RPCError::Unreachable(Unreachable::new(&error)),
            CallError::Unknown(_) => RPCError::Network(NetworkError::new(&error)),
        }
    }
}

/// The way to one member of a group.
#[derive(Clone)]
pub struct Link {
    transport: Arc<dyn Transport>,
    prefix: Arc<str>,
    target: u64,
    address: Address,
}

impl Link {
    /// The way to member `target` at `address` of the group with route prefix `prefix`.
    pub fn new(transport: Arc<dyn Transport>, prefix: Arc<str>, target: u64, address: Address) -> Link {
        Link { transport, prefix, target, address }
    }

    /// The member.
    pub fn target(&self) -> u64 {
        self.target
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Sends `message` to `<prefix>/<name>` and waits for its answer for at most `within`.
    pub async fn call<T: DeserializeOwned>(
        &self,
        name: &str,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<T, CallError> {
        let remote = |message| CallError::Remote { address: self.address.clone(), message };
        let body = encode_request(self.target, message).map_err(CallError::Unreachable)?;
        let answer = self.call_bytes(name, body, within).await?;
        decode_answer(&answer).map_err(remote)
    }

    /// Sends bytes as they are.
    pub async fn call_bytes(&self, name: &str, body: Bytes, within: Duration) -> Result<Bytes, CallError> {
        let route = format!("{}/{name}", self.prefix);
        Ok(self.transport.call(&self.address, &route, body, within).await?)
    }
}

/// How a group's snapshots travel: metadata sends its bytes, a shard streams files.
pub trait SnapshotSender<C: RaftTypeConfig>: Clone + Send + Sync + 'static {
    /// What the state machine's snapshot consists of.
    type Data: Send + 'static;

    /// Brings the whole snapshot to the member and has it installed there with `vote` (the receiver calls
    /// `install_full_snapshot` and answers its response). Dropped when the transfer is called off.
    fn send(
        &self,
        link: &Link,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, Self::Data>,
        within: Duration,
    ) -> impl Future<Output = Result<SnapshotResponse<C>, CallError>> + Send;
}

/// Makes the clients of one group.
#[derive(Clone)]
pub struct NetworkFactory<S> {
    transport: Arc<dyn Transport>,
    prefix: Arc<str>,
    snapshots: S,
}

impl<S> NetworkFactory<S> {
    /// The network of the group whose routes begin with `prefix` (without a slash at its end).
    pub fn new(transport: Arc<dyn Transport>, prefix: &str, snapshots: S) -> NetworkFactory<S> {
        NetworkFactory { transport, prefix: prefix.into(), snapshots }
    }

    /// The way to a member.
    pub fn link(&self, target: u64, address: Address) -> Link {
        Link::new(self.transport.clone(), self.prefix.clone(), target, address)
    }
}

impl<S: Clone> NetworkFactory<S> {
    fn client(&self, target: u64, node: &RaftNode, append_timeout: Duration) -> Network<S> {
        let link = self.link(target, node.address.clone());
        Network { link, append_timeout, snapshots: self.snapshots.clone() }
    }
}

impl<C: GroupConfig, S: SnapshotSender<C>> RaftNetworkFactory<C> for NetworkFactory<S> {
    type Network = Network<S>;

    async fn new_client(&mut self, target: u64, node: &RaftNode) -> Network<S> {
        self.client(target, node, APPEND_TIMEOUT)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &RaftNode) -> Network<S> {
        self.client(target, node, Duration::ZERO)
    }
}

/// The client to one member of one group.
pub struct Network<S> {
    link: Link,
    append_timeout: Duration,
    snapshots: S,
}

impl<C: GroupConfig, S: SnapshotSender<C>> RaftNetworkV2<C> for Network<S> {
    type SnapshotData = S::Data;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<C>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<C>, RPCError<C>> {
        let within = option.hard_ttl().max(self.append_timeout);
        Ok(self.link.call(call::APPEND, &rpc, within).await?)
    }

    async fn vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        Ok(self.link.call(call::VOTE, &rpc, option.hard_ttl()).await?)
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<C>, option: RPCOption) -> Result<VoteResponse<C>, RPCError<C>> {
        Ok(self.link.call(call::PRE_VOTE, &rpc, option.hard_ttl()).await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<C>,
        snapshot: SnapshotOf<C, S::Data>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<C>, StreamingError<C>> {
        tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = self.snapshots.send(&self.link, vote, snapshot, option.hard_ttl()) => {
                sent.map_err(|error| StreamingError::from(RPCError::from(error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        rpc: TransferLeaderRequest<C>,
        option: RPCOption,
    ) -> Result<Result<(), openraft::raft::TransferLeaderError<C>>, RPCError<C>> {
        Ok(self.link.call(call::TRANSFER_LEADER, &rpc, option.hard_ttl()).await?)
    }

    fn backoff(&self) -> Option<Backoff> {
        let pauses = std::iter::successors(Some(BACKOFF_FIRST), |pause| Some((*pause * 2).min(BACKOFF_LONGEST)));
        Some(Backoff::new(pauses))
    }
}
