//! What a read may see.

use serde::{Deserialize, Serialize};

/// Consistency of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Any replica that has applied the floor the request carries: clients read their writes.
    #[default]
    ReadYourWrites,
    /// The leader, after it has confirmed with a majority that it still leads.
    Linearizable,
}
