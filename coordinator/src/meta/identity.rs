//! Who a coordinator is: drawn once, kept with its data, never used for other data.

use std::io;

use serde::{Deserialize, Serialize};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{ClusterId, NodeId};
use vicinal_common::rng::Rng;

use super::store::{Record, Stored, decode};

/// Whether a coordinator without data founds a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Founding {
    /// It founds one and is its first coordinator. With data it simply starts again.
    IfNew,
    /// It waits until a cluster takes it in.
    Never,
}

/// What is kept with the data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// The cluster this coordinator founded; `None` for one that was taken in.
    pub(super) founded: Option<ClusterId>,
    /// Its raft identity.
    pub(super) node: NodeId,
    /// The operator's name for it.
    pub(super) name: String,
}

impl Identity {
    /// A new identity, to be stored before it is used.
    pub(super) fn draw(rng: &dyn Rng, name: &str, founding: Founding) -> Identity {
        let founded = match founding {
            Founding::IfNew => Some(ClusterId(rng.uuid())),
            Founding::Never => None,
        };
        Identity { founded, node: rng.node_id(), name: name.into() }
    }

    /// The identity kept with the data, if there is data.
    pub(super) fn load(stored: &Stored) -> io::Result<Option<Identity>> {
        match stored.records.get(&Record::Identity) {
            Some(bytes) => Ok(Some(decode("the identity of this coordinator", bytes)?)),
            // Anything else without an identity means that a file was lost: a new identity would be a lie to the group.
            None if stored.log.is_empty() && stored.records.is_empty() => Ok(None),
            None => Err(io::Error::new(io::ErrorKind::InvalidData, "metadata without the identity it belongs to")),
        }
    }

    /// Refuses data that belongs to another coordinator.
    pub(super) fn check_name(&self, name: &str) -> Result<()> {
        if self.name == name {
            return Ok(());
        }
        let kept = &self.name;
        Err(Error::BadInput(format!("this data directory belongs to coordinator `{kept}`, not to `{name}`")))
    }
}

/// Refuses data of another cluster. `known` is what the data says, if it says anything yet.
pub(super) fn check_cluster(known: Option<ClusterId>, expected: Option<ClusterId>) -> Result<()> {
    match (known, expected) {
        (Some(known), Some(expected)) if known != expected => {
            Err(Error::BadInput(format!("this data directory belongs to cluster {known}, not to {expected}")))
        }
        _ => Ok(()),
    }
}
