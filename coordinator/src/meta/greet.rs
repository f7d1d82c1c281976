//! Asking the other members of the metadata group whether they are there.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use vicinal_common::cluster::{self, Greeting};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::NodeId;

use super::catalog::Catalog;

impl Catalog {
    /// Asks every other member who it is, all at once. One that answers as somebody else counts as gone.
    pub async fn greet_others(&self, within: Duration) -> BTreeMap<NodeId, Result<Greeting>> {
        let group = self.group();
        let others = group.members.into_iter().filter(|(node, _)| *node != group.node);
        let asked = others.map(|(node, info)| async move {
            let greeting = match cluster::greet(&*self.inner.transport, &info.address, within).await {
                Ok(greeting) if greeting.node != Some(node) => {
                    Err(Error::Unavailable(format!("{} answers under another identity", info.address)))
                }
                answer => answer,
            };
            (node, greeting)
        });
        join_all(asked).await.into_iter().collect()
    }
}
