//! Creating and opening a shard: what is in its directory is mapped and verified, nothing is rebuilt.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use vicinal_common::api::ReplicaSpec;
use vicinal_common::disk::Disk;
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::LogIndex;

use super::commit::{Committed, StepError};
use super::environment::ShardEnv;
use super::files::{INCOMING, names_of};
use super::pace::Paces;
use super::requests::RequestTable;
use super::view::View;
use super::write::Writer;
use super::{Health, Shard};
use crate::manifest::{Manifest, StoreError, load_spec, spec_digest, store_spec};
use crate::segment::Layout;

impl Shard {
    /// Creates the shard in `dir`, durably; opens it when it is there already. `Conflict` when another shard, or one
    /// of another schema, is there.
    pub fn create(env: &ShardEnv, dir: &Path, spec: &ReplicaSpec) -> Result<Arc<Shard>> {
        let disk = &*env.disk;
        if let Some(found) = load_spec(disk, dir)? {
            if spec_digest(&found)? != spec_digest(spec)? {
                return Err(Error::Conflict(format!("the directory of shard {} holds another one", spec.shard)));
            }
            return Shard::open(env, dir);
        }
        disk.create_dir_all(dir).map_err(|e| Error::from(StepError::from(e)))?;
        // The manifest first: once the spec is there the shard exists, and then a missing manifest is damage.
        let manifest = Manifest { spec_digest: spec_digest(spec)?, ..Manifest::default() };
        Manifest::store(disk, dir, &manifest.encode()?).map_err(|error| match error {
            StoreError::NotStored(e) | StoreError::Unknown(e) => Error::from(StepError::from(e)),
        })?;
        store_spec(disk, dir, spec)?;
        Shard::open(env, dir)
    }

    /// Opens an existing shard at its durable position. `NotFound` when there is none in `dir`, `Corrupt` when its
    /// files are damaged.
    pub fn open(env: &ShardEnv, dir: &Path) -> Result<Arc<Shard>> {
        let disk = &*env.disk;
        let spec = load_spec(disk, dir)?.ok_or_else(|| Error::NotFound("there is no shard in the directory".into()))?;
        let mut manifest = Manifest::load(disk, dir)?;
        if manifest.spec_digest != spec_digest(&spec)? {
            return Err(Error::Corrupt(format!("MANIFEST: spec_digest: it is not of shard {} of SPEC", spec.shard)));
        }
        let shard = Shard::at(env, dir, spec, manifest.next_file)?;
        let wanted = Arc::new(shard.wanted(manifest.tuning.clone()));
        let mut segments = Vec::with_capacity(manifest.segments.len());
        for record in &manifest.segments {
            if record.number >= manifest.next_file {
                return Err(Error::Corrupt("MANIFEST: it names a file beyond its next one".into()));
            }
            segments.push(shard.open_segment(dir, record, record, &wanted)?);
        }
        // What is not wanted any more, and what is built again, under other names.
        for (record, segment) in manifest.segments.iter_mut().zip(&segments) {
            record.indexes.retain(|index| segment.indexes.iter().flatten().any(|known| known.number == index.number));
            record.payload_indexes.retain(|index| segment.fields.iter().any(|field| field.number == index.number));
        }
        // Only now: a manifest that does not fit its files may name too few of them.
        remove_leftovers(disk, dir, &manifest).map_err(|e| Error::from(StepError::from(e)))?;
        let applied = manifest.mark.as_ref().map_or(LogIndex(0), |mark| mark.index);
        {
            let mut committed = shard.commit.lock();
            *committed = Committed {
                mark: manifest.mark,
                membership: manifest.membership,
                requests: manifest.requests,
                wanted,
                segments,
                feed: Arc::new(manifest.feed),
                maps: manifest.maps,
            };
            shard.durable.lock().clone_from(&committed.mark);
            shard.show(&committed, applied);
        }
        shard.schedule_optimizer(std::time::Duration::ZERO);
        Ok(shard)
    }

    /// An empty shard.
    fn at(env: &ShardEnv, dir: &Path, spec: ReplicaSpec, next_file: u64) -> Result<Arc<Shard>> {
        let layout = Arc::new(Layout::new(&spec.schema));
        let view = View::of_segments(Arc::clone(&layout), LogIndex(0), Arc::default(), Vec::new());
        let policy = Shard::policy_of(&env.options, &spec.schema, &layout);
        let digest = spec_digest(&spec)?;
        Ok(Arc::new_cyclic(|this| Shard {
            env: env.clone(),
            dir: dir.to_path_buf(),
            spec_digest: digest,
            spec,
            layout,
            policy,
            view: ArcSwap::from_pointee(view),
            writer: Mutex::new(Writer { mark: None, membership: None, requests: RequestTable::default(), frozen: 0 }),
            deaths: Mutex::new(None),
            commit: Mutex::new(Committed::default()),
            optimizer: Mutex::new(()),
            opening: Mutex::new(()),
            build: Mutex::new(None),
            durable: Mutex::new(None),
            listeners: Mutex::new(Vec::new()),
            health: Mutex::new(Health::default()),
            next_file: AtomicU64::new(next_file),
            flush_requested: AtomicBool::new(false),
            flush_scheduled: AtomicBool::new(false),
            idle_scheduled: AtomicBool::new(false),
            optimizer_scheduled: AtomicBool::new(false),
            opening_scheduled: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            paces: Paces::default(),
            this: this.clone(),
        }))
    }
}

/// Removes what no manifest names: files of steps that a crash cut short.
fn remove_leftovers(disk: &dyn Disk, dir: &Path, manifest: &Manifest) -> std::io::Result<()> {
    let known = names_of(manifest);
    for name in disk.list(dir)? {
        if name == INCOMING {
            disk.remove_dir_all(&dir.join(&name))?;
        } else if !known.contains(&name) {
            tracing::debug!(%name, "removing a file that belongs to no state of the shard");
            disk.remove(&dir.join(&name))?;
        }
    }
    Ok(())
}
