//! The maps of routing by cluster on a node's disk: one immutable file each under `maps/`, named by collection and digest.
//! The replicas of a node share what is parsed of them.
//!
//! A map is no data: it can be fetched from another node or trained again. But a home shard's leader cannot publish
//! without it, so a map counts as held only once its file is durable, and as soon as damage is noticed it does not count
//! any more: the node's status then asks for it to be put again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use vicinal_common::api::{KeepMaps, PutMap};
use vicinal_common::disk::{Disk, TEMPORARY_SUFFIX, prepare_file};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{CollectionId, MapDigest, MapVersion};
use vicinal_common::limits::MAP_BYTES_MAX;
use vicinal_routing::{CentroidMap, Placer};

use crate::shard::MapSource;

/// Ending of the files' names.
const SUFFIX: &str = ".map";

/// A map ready for use.
pub struct OpenMap {
    /// The map.
    pub map: Arc<CentroidMap>,
    /// Places vectors by it.
    pub placer: Placer,
}

/// The maps of a node. Calls block, except [`MapStore::digests`].
pub struct MapStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// What the directory holds for certain. Changed only under `changing`, but for damage that a read finds.
    held: Mutex<BTreeMap<Name, Held>>,
    /// Serialises changes of files.
    changing: Mutex<()>,
    /// Also held while a map is parsed, so that each is parsed once.
    opened: Mutex<BTreeMap<MapDigest, Weak<OpenMap>>>,
}

/// What a file's name says. Collections share no file, so that one can be swept without asking the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    collection: CollectionId,
    digest: MapDigest,
}

/// What is known of a file.
#[derive(Clone, Debug)]
enum Held {
    /// Durable, and right when it was last read.
    Good(MapVersion),
    /// Not what its name says; in words.
    Damaged(String),
}

impl Name {
    fn file(self) -> String {
        format!("{}-{}{SUFFIX}", self.collection, self.digest)
    }

    /// `None` for names that are not written so.
    fn parse(file: &str) -> Option<Name> {
        let (collection, digest) = file.strip_suffix(SUFFIX)?.rsplit_once('-')?;
        let collection = CollectionId(uuid::Uuid::try_parse(collection).ok()?);
        let digest = MapDigest(u128::from_str_radix(digest, 16).ok()?);
        let name = Name { collection, digest };
        (name.file() == file).then_some(name)
    }
}

impl MapStore {
    /// Opens the directory, makes it if need be, and looks at every map in it. A damaged file keeps nothing from starting.
    pub fn start(disk: Arc<dyn Disk>, dir: PathBuf) -> Result<MapStore> {
        let store =
            MapStore { disk, dir, held: Mutex::default(), changing: Mutex::default(), opened: Mutex::default() };
        store.scan()?;
        Ok(store)
    }

    fn scan(&self) -> Result<()> {
        let disk = self.disk.as_ref();
        disk.create_dir_all(&self.dir).map_err(|e| failed("create", &self.dir, e))?;
        let mut names = Vec::new();
        for file in disk.list(&self.dir).map_err(|e| failed("list", &self.dir, e))? {
            let path = self.dir.join(&file);
            if file.ends_with(TEMPORARY_SUFFIX) {
                disk.remove(&path).map_err(|e| failed("remove", &path, e))?;
            } else if let Some(name) = Name::parse(&file) {
                names.push(name);
            } else {
                tracing::warn!(file, dir = %self.dir.display(), "not a map, left alone");
            }
        }
        // An earlier process may have ended between a rename and this.
        disk.sync_dir(&self.dir).map_err(|e| failed("sync", &self.dir, e))?;
        for name in names {
            let held = match self.read(name).and_then(|bytes| decode(&bytes)) {
                Ok(map) => Held::Good(version(&map)),
                Err(Error::Internal(words)) => return Err(Error::Internal(words)),
                Err(e) => {
                    tracing::warn!(file = name.file(), error = %e, "a map is damaged and has to be put again");
                    Held::Damaged(words(e))
                }
            };
            self.held.lock().insert(name, held);
        }
        Ok(())
    }

    /// Keeps a map; durable when it returns. Doing it again changes nothing, except that a damaged file is replaced.
    /// Errors: `TooLarge`, `Corrupt` when the bytes are not those that the digest names, `BadInput` when they are no map.
    pub fn put(&self, request: &PutMap) -> Result<()> {
        let PutMap { collection, digest, bytes } = request;
        if bytes.len() > MAP_BYTES_MAX {
            return Err(Error::TooLarge(format!("a map of {} bytes: the limit is {MAP_BYTES_MAX}", bytes.len())));
        }
        check_digest(*digest, bytes)?;
        let map = decode(bytes).map_err(|e| Error::BadInput(words(e)))?;
        let name = Name { collection: *collection, digest: *digest };
        let _changing = self.changing.lock();
        if matches!(self.held.lock().get(&name), Some(Held::Good(_))) {
            return Ok(());
        }
        let path = self.path(name);
        let written = prepare_file(self.disk.as_ref(), &path, bytes)
            .and_then(|temporary| self.disk.rename(&temporary, &path))
            .and_then(|()| self.disk.sync_dir(&self.dir));
        written.map_err(|e| match e.kind() {
            io::ErrorKind::StorageFull => Error::Unavailable(format!("disk is full: cannot keep a map: {e}")),
            _ => failed("write", &path, e),
        })?;
        self.held.lock().insert(name, Held::Good(version(&map)));
        Ok(())
    }

    /// The bytes of a map, found to be right just now. `NotFound` when it is not here, `Corrupt` when its file is damaged.
    pub fn get(&self, digest: MapDigest) -> Result<Bytes> {
        // Any collection's file will do: equal digests are equal bytes.
        let mut last = None;
        for (name, held) in self.files(digest) {
            match held {
                Held::Damaged(words) => last = Some(Error::Corrupt(words)),
                Held::Good(_) => match self.read(name) {
                    Ok(bytes) => return Ok(bytes.into()),
                    Err(e) => {
                        self.note_damage(name, &e);
                        last = Some(e);
                    }
                },
            }
        }
        Err(last.unwrap_or_else(|| Error::NotFound(format!("map {digest} is not on this node"))))
    }

    /// The map ready for use: parsed once for all that use it at a time. Errors as of [`MapStore::get`].
    pub fn open(&self, digest: MapDigest) -> Result<Arc<OpenMap>> {
        let mut opened = self.opened.lock();
        if self.files(digest).is_empty() {
            return Err(Error::NotFound(format!("map {digest} is not on this node")));
        }
        if let Some(open) = opened.get(&digest).and_then(Weak::upgrade) {
            return Ok(open);
        }
        let map = Arc::new(decode(&self.get(digest)?)?);
        let open = Arc::new(OpenMap { map: map.clone(), placer: Placer::new(map) });
        opened.retain(|_, open| open.strong_count() > 0);
        opened.insert(digest, Arc::downgrade(&open));
        Ok(open)
    }

    /// Removes the maps of a collection that the message does not name and that are not newer than what it knew of: the
    /// map itself says its version. So a message that is late removes nothing that came after it was sent, in whatever
    /// order messages and maps arrive and without anything being remembered; a version that ended never comes back.
    pub fn keep(&self, request: &KeepMaps) -> Result<()> {
        let _changing = self.changing.lock();
        let is_over = |name: &Name, held: &Held| {
            let is_known = match held {
                Held::Good(version) => *version <= request.as_of,
                // Of no use to anybody.
                Held::Damaged(_) => true,
            };
            name.collection == request.collection && is_known && !request.digests.contains(&name.digest)
        };
        let over: Vec<Name> =
            self.held.lock().iter().filter(|(name, held)| is_over(name, held)).map(|(name, _)| *name).collect();
        if over.is_empty() {
            return Ok(());
        }
        for name in over {
            let path = self.path(name);
            // Not held before it is gone: nobody may be told that a map is here which a crash then takes.
            self.held.lock().remove(&name);
            match self.disk.remove(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    let e = failed("remove", &path, e);
                    self.held.lock().insert(name, Held::Damaged(words(e.clone())));
                    return Err(e);
                }
                _ => {}
            }
        }
        self.disk.sync_dir(&self.dir).map_err(|e| failed("sync", &self.dir, e))
    }

    /// The maps that are here and not known to be damaged, ascending.
    pub fn digests(&self) -> Vec<MapDigest> {
        let held = self.held.lock();
        let good = held.iter().filter(|(_, held)| matches!(held, Held::Good(_)));
        let mut digests: Vec<MapDigest> = good.map(|(name, _)| name.digest).collect();
        digests.sort_unstable();
        digests.dedup();
        digests
    }

    /// The files that should hold a map, those that do first.
    fn files(&self, digest: MapDigest) -> Vec<(Name, Held)> {
        let held = self.held.lock();
        let of_it = held.iter().filter(|(name, _)| name.digest == digest);
        let mut files: Vec<(Name, Held)> = of_it.map(|(name, held)| (*name, held.clone())).collect();
        files.sort_by_key(|(_, held)| matches!(held, Held::Damaged(_)));
        files
    }

    /// `Internal` when the disk fails, `Corrupt` when the file is not what its name says.
    fn read(&self, name: Name) -> Result<Vec<u8>> {
        let path = self.path(name);
        let bytes = self.disk.read(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::Corrupt(format!("the map file {} is missing", path.display())),
            _ => failed("read", &path, e),
        })?;
        check_digest(name.digest, &bytes).map_err(|e| e.with_note(&path.display().to_string()))?;
        Ok(bytes)
    }

    fn note_damage(&self, name: Name, e: &Error) {
        let Error::Corrupt(words) = e else { return };
        // Not what was put anew, or swept, since it was read.
        let _changing = self.changing.lock();
        if self.held.lock().contains_key(&name) && matches!(self.read(name), Err(Error::Corrupt(_))) {
            tracing::warn!(file = name.file(), words, "a map is damaged and has to be put again");
            self.held.lock().insert(name, Held::Damaged(words.clone()));
        }
    }

    fn path(&self, name: Name) -> PathBuf {
        self.dir.join(name.file())
    }
}

impl MapSource for MapStore {
    fn holds(&self, map: MapDigest) -> bool {
        self.files(map).iter().any(|(_, held)| matches!(held, Held::Good(_)))
    }

    fn open(&self, map: MapDigest) -> Result<Arc<OpenMap>> {
        MapStore::open(self, map)
    }
}

fn check_digest(digest: MapDigest, bytes: &[u8]) -> Result<()> {
    let found = MapDigest::of(bytes);
    if found != digest {
        return Err(Error::Corrupt(format!("map {digest}: the {} bytes have digest {found}", bytes.len())));
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<CentroidMap> {
    CentroidMap::decode(bytes).map_err(|e| Error::Corrupt(e.to_string()))
}

fn version(map: &CentroidMap) -> MapVersion {
    MapVersion(map.parts().version)
}

/// The text without the kind.
fn words(e: Error) -> String {
    match e {
        Error::Corrupt(words) | Error::Internal(words) => words,
        other => other.to_string(),
    }
}

fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    Error::Internal(format!("{what} {}: {e}", path.display()))
}

#[cfg(test)]
pub(super) mod tests;
