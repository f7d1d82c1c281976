//! Control messages: rare, so in postcard form.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{Operation, Reader, Request, Wire, Writer};
use crate::api::{ChangeMembers, FoundGroup, MembersChange, NodeStatus, ReplicaSpec, Tune};
use crate::error::Result;
use crate::ids::ShardId;

/// Asks for a replica to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReplica(pub ShardId);

/// Asks for the state of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status;

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
in_postcard!(ReplicaSpec, FoundGroup, ChangeMembers, DropReplica, Tune, Status, MembersChange, NodeStatus, ());

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
