//! Opening the metadata: what is stored, who this coordinator is, and its part in the group.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;
use vicinal_common::clock::Clock;
use vicinal_common::error::{Error, Result};
use vicinal_common::exec;
use vicinal_common::ids::ClusterId;
use vicinal_common::raft::{NetworkFactory, RaftNode, metadata_config};
use vicinal_common::rng::Rng;
use vicinal_common::transport::{Address, Transport};

use super::catalog::{Catalog, Inner};
use super::command::MetaCommand;
use super::identity::{Founding, Identity, check_cluster};
use super::network::{META_PREFIX, WholeSnapshot};
use super::raft::{MetaRaft, StateMachine};
use super::raft_log::LogStore;
use super::store::{Change, MetaStore, Record, Stored, encode};
use super::writer::Writer;

/// Longest wait for a sole coordinator to be current after a start.
const RECOVERY: Duration = Duration::from_secs(30);

/// What a coordinator's catalog is opened with.
pub struct CatalogOptions {
    /// The operator's name for this coordinator.
    pub name: String,
    /// Where the other coordinators reach it.
    pub address: Address,
    /// Where the metadata is kept.
    pub store: Box<dyn MetaStore>,
    /// The way to the other coordinators.
    pub transport: Arc<dyn Transport>,
    /// Identities are drawn from here.
    pub rng: Arc<dyn Rng>,
    /// Times in the metadata come from here.
    pub clock: Arc<dyn Clock>,
    /// The cluster the data must belong to, if the operator named one.
    pub cluster: Option<ClusterId>,
}

/// Metadata that is read and not in use yet.
pub struct Loaded {
    options: CatalogOptions,
    stored: Stored,
    identity: Option<Identity>,
}

impl Loaded {
    /// Reads the store. `BadInput` for the data of another coordinator.
    pub async fn read(mut options: CatalogOptions) -> Result<Loaded> {
        let mut store = options.store;
        let loaded = exec::blocking(move || store.load().map(|stored| (store, stored))).await;
        let (store, stored) = loaded.map_err(|error| refused(&error))?.map_err(|error| refused(&error))?;
        options.store = store;
        let identity = Identity::load(&stored).map_err(|error| refused(&error))?;
        if let Some(identity) = &identity {
            identity.check_name(&options.name)?;
        }
        Ok(Loaded { options, stored, identity })
    }

    /// Whether there is no data yet: then it matters whether this coordinator founds a cluster.
    pub fn is_new(&self) -> bool {
        self.identity.is_none()
    }

    /// Takes part in the group. The caller makes [`Catalog::handler`] reachable at its address. A founder, and a sole
    /// coordinator, returns only when its state is current.
    pub async fn open(self, founding: Founding) -> Result<Catalog> {
        let Loaded { options, stored, identity } = self;
        let CatalogOptions { name, address, store, transport, rng, clock, cluster } = options;
        let writer = Arc::new(Writer::start(store).map_err(|error| refused(&error))?);
        let identity = match identity {
            Some(identity) => identity,
            None => {
                let identity = Identity::draw(&*rng, &name, founding);
                let bytes = encode(&identity).map_err(|error| refused(&error))?;
                let stored = writer.write(vec![Change::Set(Record::Identity, bytes)]).await;
                stored.map_err(|error| refused(&error))?;
                identity
            }
        };
        let log = LogStore::open(&stored, writer.clone()).map_err(|error| refused(&error))?;
        let (machine, published) = StateMachine::open(&stored, writer.clone()).map_err(|error| refused(&error))?;
        drop(stored);
        let network = NetworkFactory::new(transport.clone(), META_PREFIX, WholeSnapshot);
        let id = identity.node.0;
        let raft = MetaRaft::new(id, metadata_config(), network.clone(), log, machine).await;
        let raft = raft.map_err(|error| refused(&error))?;
        let catalog = Catalog {
            inner: Arc::new(Inner { raft, published, network, transport, writer, space: OnceLock::new(), rng, clock }),
        };
        match catalog.start(&identity, RaftNode { name, address }, cluster).await {
            Ok(()) => Ok(catalog),
            Err(error) => {
                catalog.shutdown().await;
                Err(error)
            }
        }
    }
}

impl Catalog {
    /// Reads the store and takes part in the group at once.
    pub async fn open(options: CatalogOptions, founding: Founding) -> Result<Catalog> {
        Loaded::read(options).await?.open(founding).await
    }

    async fn start(&self, identity: &Identity, me: RaftNode, expected: Option<ClusterId>) -> Result<()> {
        let raft = &self.inner.raft;
        check_cluster(identity.founded.or(self.state().cluster), expected)?;
        let initialized = raft.is_initialized().await.map_err(|error| refused(&error))?;
        if let (false, Some(_)) = (initialized, identity.founded) {
            let founded = raft.initialize(BTreeMap::from([(identity.node.0, me)])).await;
            founded.map_err(|error| refused(&error))?;
        }
        let sole = self.group().voters == BTreeSet::from([identity.node]);
        if sole || (!initialized && identity.founded.is_some()) {
            let recovered = raft.wait_for_recovery(Some(RECOVERY)).await;
            recovered.map_err(|error| Error::Unavailable(format!("the metadata is not current: {error}")))?;
            check_cluster(self.state().cluster, expected)?;
        }
        // Also after a crash between founding the group and naming the cluster: then the founder is the sole member.
        if let (Some(cluster), None) = (identity.founded, self.state().cluster)
            && self.group().voters == BTreeSet::from([identity.node])
        {
            self.change(MetaCommand::FoundCluster { cluster }, Instant::now() + RECOVERY).await?;
        }
        Ok(())
    }
}

fn refused(error: &dyn std::fmt::Display) -> Error {
    Error::Internal(format!("metadata cannot be opened: {error}"))
}
