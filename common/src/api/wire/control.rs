//! Control messages: rare, so in postcard form.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Operation, Reader, Request, Wire, Writer};
use crate::api::{ChangeMembers, FoundGroup, KeepMaps, MembersChange, NodeStatus, PutMap, ReplicaSpec, Tune};
use crate::error::Result;
use crate::ids::{CollectionId, MapDigest, ShardId};

/// Asks for a replica to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReplica(pub ShardId);

/// Asks for the state of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status;

/// Asks for a map's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetMap(pub MapDigest);

/// Messages whose form is postcard's.
macro_rules! in_postcard {
    ($($message:ty),*) => {$(
        impl Wire for $message {
            fn put(&self, to: &mut Writer) {
                to.postcard(self);
            }

            fn read(from: &mut Reader<'_>) -> Result<$message> {
                from.postcard()
            }
        }
    )*};
}
in_postcard!(
    ReplicaSpec,
    FoundGroup,
    ChangeMembers,
    DropReplica,
    Tune,
    Status,
    GetMap,
    KeepMaps,
    MembersChange,
    NodeStatus,
    ()
);

impl Wire for PutMap {
    fn put(&self, to: &mut Writer) {
        self.collection.put(to);
        to.raw(&self.digest.0.to_le_bytes());
        to.bytes(&self.bytes);
    }

    fn read(from: &mut Reader<'_>) -> Result<PutMap> {
        let (collection, digest) = (CollectionId::read(from)?, MapDigest(u128::from_le_bytes(from.sixteen()?)));
        Ok(PutMap { collection, digest, bytes: from.shared_bytes()? })
    }
}

impl Wire for Bytes {
    fn put(&self, to: &mut Writer) {
        to.bytes(self);
    }

    fn read(from: &mut Reader<'_>) -> Result<Bytes> {
        from.shared_bytes()
    }
}

/// A control request and what is answered to it.
macro_rules! control {
    ($request:ty, $operation:ident, $answer:ty) => {
        impl Request for $request {
            const OPERATION: Operation = Operation::$operation;
            type Answer = $answer;

            fn deadline(&self) -> Option<Instant> {
                None
            }
        }
    };
}
control!(ReplicaSpec, CreateReplica, ());
control!(FoundGroup, FoundGroup, ());
control!(ChangeMembers, ChangeMembers, MembersChange);
control!(DropReplica, DropReplica, ());
control!(Tune, Tune, ());
control!(Status, Status, NodeStatus);
control!(PutMap, PutMap, ());
control!(GetMap, GetMap, Bytes);
control!(KeepMaps, KeepMaps, ());
