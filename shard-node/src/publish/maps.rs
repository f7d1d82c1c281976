//! Opening the maps in force. One that is not on this node is fetched from another one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use vicinal_common::api::PutMap;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::publish::MapRef;

use super::Around;
use crate::node::OpenMap;

/// How long another node may take to send a map.
const FETCH: Duration = Duration::from_secs(10);

/// Opens a map. Errors say why it cannot be used yet.
pub(super) async fn open(around: &Around, map: &MapRef) -> Result<Arc<OpenMap>> {
    let (store, digest) = (around.maps.clone(), map.digest);
    match exec::blocking(move || store.open(digest)).await? {
        Err(Error::NotFound(_) | Error::Corrupt(_)) => {}
        opened => return opened,
    }
    fetch(around, map).await?;
    let store = around.maps.clone();
    exec::blocking(move || store.open(digest)).await?
}

/// Gets a map from any node that has it, and keeps it.
async fn fetch(around: &Around, map: &MapRef) -> Result<()> {
    let mut last = Error::NotFound(format!("map {} is on no node that is known here", map.digest));
    for node in around.peers.ids().into_iter().filter(|node| *node != around.node) {
        let Some(api) = around.peers.get(node) else { continue };
        match timeout(FETCH, api.get_map(map.digest)).await {
            Ok(Ok(bytes)) => {
                let collection = around.group.shard().spec().collection;
                let put = PutMap { collection, digest: map.digest, bytes };
                let store = around.maps.clone();
                return exec::blocking(move || store.put(&put)).await?;
            }
            Ok(Err(Error::NotFound(_))) => {}
            Ok(Err(error)) => last = error,
            Err(_) => last = Error::Timeout(format!("node {node} did not send map {} in time", map.digest)),
        }
    }
    Err(last)
}
