//! What processes of a cluster say to its coordinators: who is there, who wants to join, how a node is.
//!
//! Routes begin with [`PREFIX`]. A message is a version byte and its postcard form; an answer is a version byte and
//! `Result<message, Error>` in postcard form.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::NodeStatus;
use crate::error::{Error, Result};
use crate::ids::{ClusterId, NodeId};
use crate::raft::RaftNode;
use crate::transport::{Address, Transport, TransportError};

/// First part of the routes.
pub const PREFIX: &str = "cluster/";

/// Names of the calls, the last part of a route.
pub mod call {
    /// Who a coordinator is: answered with [`super::Greeting`], also before it belongs to a cluster.
    pub const GREET: &str = "greet";
    /// A coordinator asks to be taken in: [`super::Join`], answered with [`super::Joined`].
    pub const JOIN: &str = "join";
    /// A shard node says that it lives and how it is: [`super::Heartbeat`], answered with [`super::Heard`].
    pub const HEARTBEAT: &str = "heartbeat";
}

/// Version of the messages.
const VERSION: u8 = 3;

/// Who a coordinator is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Greeting {
    /// The operator's name for it.
    pub name: String,
    /// Its raft identity; `None` until it has one.
    pub node: Option<NodeId>,
    /// Its cluster; `None` until it belongs to one.
    pub cluster: Option<ClusterId>,
    /// The leading coordinator as far as it knows.
    pub leader: Option<NodeId>,
    /// All coordinators it knows, by identity.
    pub members: BTreeMap<NodeId, RaftNode>,
}

/// A coordinator asks to be taken into the metadata group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Join {
    /// Its raft identity, kept with its data.
    pub node: NodeId,
    /// Its name, and where the others reach it.
    pub info: RaftNode,
}

/// What became of a join.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Joined {
    /// It is a member now, or was one; the metadata arrives by itself.
    Member {
        /// The cluster.
        cluster: ClusterId,
    },
    /// Ask the leader.
    NotLeader {
        /// Where it is, if that is known.
        leader: Option<Address>,
    },
}

/// A sign of life of a shard node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Its raft identity, kept with its data.
    pub node: NodeId,
    /// The operator's name for it.
    pub name: String,
    /// Where it is reached.
    pub address: Address,
    /// Where it stands: replicas of a shard are spread over zones.
    pub zone: Option<String>,
    /// The cluster its data belongs to; `None` before it has joined one.
    pub cluster: Option<ClusterId>,
    /// It is shutting down: do not ask it any more.
    pub leaving: bool,
    /// How its replicas are.
    pub status: NodeStatus,
}

/// Answer to a sign of life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    /// The cluster.
    pub cluster: ClusterId,
    /// All coordinators: each wants signs of life.
    pub coordinators: Vec<Address>,
    /// All shard nodes, replaced ones left out: home shards send copies to search shards.
    pub nodes: BTreeMap<NodeId, Address>,
}

/// A message as bytes.
pub fn encode(message: &impl Serialize) -> Result<Bytes> {
    let encoded = postcard::to_extend(message, vec![VERSION]);
    encoded.map(Bytes::from).map_err(|error| Error::Internal(format!("encode a cluster message: {error}")))
}

/// The message in bytes. `BadInput` for another version or form.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    match bytes.split_first() {
        Some((&VERSION, message)) => postcard::from_bytes(message)
            .map_err(|error| Error::BadInput(format!("a cluster message cannot be decoded: {error}"))),
        Some((version, _)) => Err(Error::BadInput(format!(
            "a cluster message has version {version}, this process knows {VERSION}: run the same release everywhere"
        ))),
        None => Err(Error::BadInput("a cluster message is empty".into())),
    }
}

/// Sends `message` to the call `name` of the coordinator at `to`. `Unavailable` when it brings no answer in time.
pub async fn send<T: DeserializeOwned>(
    transport: &dyn Transport,
    to: &Address,
    name: &str,
    message: &impl Serialize,
    within: Duration,
) -> Result<T> {
    let route = format!("{PREFIX}{name}");
    let answer = transport.call(to, &route, encode(message)?, within).await;
    let answer = answer.map_err(|error: TransportError| Error::Unavailable(error.to_string()))?;
    decode::<Result<T>>(&answer)?
}

/// Asks the coordinator at `address` who it is. `Unavailable` when it brings no answer in time.
pub async fn greet(transport: &dyn Transport, address: &Address, within: Duration) -> Result<Greeting> {
    send(transport, address, call::GREET, &(), within).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_other_versions_are_named() {
        let heard = Heard {
            cluster: ClusterId(uuid::Uuid::from_u128(9)),
            coordinators: vec![Address("http://127.0.0.1:1".into())],
            nodes: [(NodeId(2), Address("http://127.0.0.1:2".into()))].into(),
        };
        let mut bytes = encode(&heard).unwrap().to_vec();
        assert_eq!(decode::<Heard>(&bytes).unwrap(), heard);
        bytes[0] = 9;
        let text = decode::<Heard>(&bytes).unwrap_err().to_string();
        assert!(text.contains("version 9"), "{text}");
        assert!(decode::<Heard>(&[]).is_err());
        assert!(decode::<Heard>(&bytes[..1]).is_err());
    }
}
