//! A disk in memory whose power can be cut at every operation. It keeps two images apart: *live*, what a running
//! process sees, and *durable*, what is certain to be there after a power cut. Between the two lies what was not synced,
//! of which a seeded generator decides how much a cut leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

use super::{Disk, DiskFile, Mapping};
use content::Content;

mod content;
#[cfg(test)]
mod tests;

/// What can go wrong with a [`FaultyDisk`]. An *operation* is a call that changes something or makes it durable
/// (`create_dir_all`, `create`, `rename`, `remove`, `remove_dir_all`, `sync_dir`, `write_at`, `truncate`, `sync`);
/// reading is none. Operations and syncs are counted from the making of the disk, over restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power fails after `operations` operations in all: every later call fails until [`FaultyDisk::reboot`].
    Cut {
        /// Count of operations that are still carried out.
        operations: u64,
    },
    /// The disk holds `bytes` in all: a write past that stores what fits and fails with `StorageFull`.
    Full {
        /// Sum of the lengths of all files, in bytes.
        bytes: u64,
    },
    /// After `syncs` syncs in all (of files and directories) the next one fails with an I/O error, once. As with a real kernel, the unsynced data of the file stays readable but is forgotten as something to
    /// write: no later sync makes it durable, only writing it again does. Names stay to be synced.
    SyncError {
        /// Count of syncs that still succeed.
        syncs: u64,
    },
    /// One bit of a file changes at once, on the device too.
    BitFlip {
        /// The file.
        path: PathBuf,
        /// Byte within the file.
        offset: u64,
        /// Bit within the byte, 0 to 7.
        bit: u8,
    },
}

type Inode = Arc<Mutex<Content>>;

/// One change of a name that is not yet durable. All its parts reach the device together or not at all.
struct NameChange {
    /// Syncing this directory makes the change durable.
    dir: PathBuf,
    /// The name goes, if it still means this file.
    removed: Option<(PathBuf, Inode)>,
    /// The name then means this file.
    added: Option<(PathBuf, Inode)>,
}

struct State {
    random: Xoshiro256PlusPlus,
    /// Counts restarts: a file that was opened before one is dead.
    boot: u64,
    on: bool,
    operations: u64,
    syncs: u64,
    cut_after: Option<u64>,
    full_at_bytes: Option<u64>,
    fail_after_syncs: Option<u64>,
    live: BTreeMap<PathBuf, Inode>,
    durable: BTreeMap<PathBuf, Inode>,
    unsynced: Vec<NameChange>,
    live_dirs: BTreeSet<PathBuf>,
    durable_dirs: BTreeSet<PathBuf>,
}

/// A disk in memory with faults. Clones are handles of the same disk. Cross-directory renames are not atomic over a
/// power cut; only files can be renamed.
#[derive(Clone)]
pub struct FaultyDisk(Arc<Mutex<State>>);

fn error(kind: io::ErrorKind, path: &Path) -> io::Error {
    io::Error::new(kind, format!("{kind}: {}", path.display()))
}

fn no_power() -> io::Error {
    io::Error::other("the disk has lost its power")
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// The root and the working directory are always there.
fn is_root(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.parent().is_none() || dir == Path::new(".")
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.on { Ok(()) } else { Err(no_power()) }
    }

    /// Begins an operation, unless the power fails now.
    fn begin(&mut self) -> io::Result<()> {
        self.check_power()?;
        if self.cut_after.is_some_and(|operations| self.operations >= operations) {
            self.on = false;
            return Err(no_power());
        }
        self.operations += 1;
        Ok(())
    }

    /// Begins a sync; true when it is to fail.
    fn begin_sync(&mut self) -> io::Result<bool> {
        self.begin()?;
        let fails = self.fail_after_syncs.is_some_and(|syncs| self.syncs >= syncs);
        self.syncs += 1;
        if fails {
            self.fail_after_syncs = None;
        }
        Ok(fails)
    }

    fn has_dir(&self, dir: &Path) -> bool {
        is_root(dir) || self.live_dirs.contains(dir)
    }

    fn inode(&self, path: &Path) -> io::Result<Inode> {
        self.live.get(path).cloned().ok_or_else(|| error(io::ErrorKind::NotFound, path))
    }

    fn used_bytes(&self) -> u64 {
        self.live.values().map(|inode| inode.lock().live.len() as u64).sum()
    }

    fn apply_durably(&mut self, change: NameChange) {
        if let Some((path, inode)) = change.removed
            && self.durable.get(&path).is_some_and(|held| Arc::ptr_eq(held, &inode))
        {
            self.durable.remove(&path);
        }
        if let Some((path, inode)) = change.added {
            self.durable.insert(path, inode);
        }
    }

    /// Makes the names in `dir` durable; of a directory that was removed from it also those inside, since a directory
    /// can only go when it is empty.
    fn sync_names(&mut self, dir: &Path) {
        let gone: Vec<PathBuf> = self
            .durable_dirs
            .iter()
            .filter(|path| path.starts_with(dir) && *path != dir && !self.live_dirs.contains(*path))
            .filter(|path| !path.ancestors().skip(1).take_while(|up| *up != dir).any(|up| self.live_dirs.contains(up)))
            .cloned()
            .collect();
        for change in std::mem::take(&mut self.unsynced) {
            if change.dir == dir || gone.contains(&change.dir) {
                self.apply_durably(change);
            } else {
                self.unsynced.push(change);
            }
        }
        for path in gone {
            self.durable_dirs.remove(&path);
        }
        let made = self.live_dirs.iter().filter(|path| parent(path) == dir).cloned().collect::<Vec<_>>();
        self.durable_dirs.extend(made);
    }

    /// Decides what of the unsynced the cut has left, and makes that both images.
    fn settle(&mut self) {
        let share = Content::draw_share(&mut self.random);
        for change in std::mem::take(&mut self.unsynced) {
            if self.random.random_bool(share) {
                self.apply_durably(change);
            }
        }
        // Each file once, though it may have several names.
        let mut settled: BTreeMap<*const Mutex<Content>, Inode> = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (path, inode) in std::mem::take(&mut self.durable) {
            let file = settled
                .entry(Arc::as_ptr(&inode))
                .or_insert_with(|| Arc::new(Mutex::new(inode.lock().after_cut(&mut self.random))));
            let mut dir = parent(&path);
            while !is_root(&dir) {
                self.durable_dirs.insert(dir.clone());
                dir = parent(&dir);
            }
            names.insert(path, file.clone());
        }
        self.durable = names;
        self.live = self.durable.clone();
        self.live_dirs = self.durable_dirs.clone();
    }
}

impl FaultyDisk {
    /// An empty disk; the seed decides what power cuts leave behind.
    pub fn new(seed: u64) -> FaultyDisk {
        FaultyDisk(Arc::new(Mutex::new(State {
            random: Xoshiro256PlusPlus::seed_from_u64(seed),
            boot: 0,
            on: true,
            operations: 0,
            syncs: 0,
            cut_after: None,
            full_at_bytes: None,
            fail_after_syncs: None,
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            unsynced: Vec::new(),
            live_dirs: BTreeSet::new(),
            durable_dirs: BTreeSet::new(),
        })))
    }

    /// Arms a fault; a later one of the same kind replaces it. `NotFound` or `InvalidInput` when there is no such byte
    /// to flip.
    pub fn inject(&self, fault: Fault) -> io::Result<()> {
        let mut state = self.0.lock();
        match fault {
            Fault::Cut { operations } => state.cut_after = Some(operations),
            Fault::Full { bytes } => state.full_at_bytes = Some(bytes),
            Fault::SyncError { syncs } => state.fail_after_syncs = Some(syncs),
            Fault::BitFlip { path, offset, bit } => {
                let inode = state.inode(&path)?;
                let flipped = inode.lock().flip(offset, bit);
                return if flipped { Ok(()) } else { Err(error(io::ErrorKind::InvalidInput, &path)) };
            }
        }
        Ok(())
    }

    /// Makes room: the disk is no longer full.
    pub fn lift_full(&self) {
        self.0.lock().full_at_bytes = None;
    }

    /// Operations carried out so far.
    pub fn operations(&self) -> u64 {
        self.0.lock().operations
    }

    /// Syncs carried out or failed so far, of files and directories.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Whether a cut has hit and no reboot followed.
    pub fn is_off(&self) -> bool {
        !self.0.lock().on
    }

    /// Cuts the power (if it is still on) and turns it on again. What was not synced may be there or not, in pieces of
    /// up to 512 bytes of which one may be torn; of names not synced each change may be there or not. Files that were
    /// open are dead. A cut or sync error that has not hit is disarmed.
    pub fn reboot(&self) {
        let mut state = self.0.lock();
        state.settle();
        state.boot += 1;
        state.on = true;
        state.cut_after = None;
        state.fail_after_syncs = None;
    }

    fn handle(&self, state: &State, inode: Inode) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { disk: self.0.clone(), boot: state.boot, inode })
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        if dir.ancestors().any(|path| state.live.contains_key(path)) {
            return Err(error(io::ErrorKind::AlreadyExists, dir));
        }
        let path: Vec<PathBuf> = dir.ancestors().take_while(|path| !is_root(path)).map(Path::to_path_buf).collect();
        for dir in path.iter().rev() {
            // Durable on return; that includes the end of a directory that had this name before.
            state.sync_names(&parent(dir));
            state.live_dirs.insert(dir.clone());
            state.durable_dirs.insert(dir.clone());
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut state = self.0.lock();
        state.begin()?;
        if state.live.contains_key(path) || state.has_dir(path) {
            return Err(error(io::ErrorKind::AlreadyExists, path));
        }
        let dir = parent(path);
        if !state.has_dir(&dir) {
            return Err(error(io::ErrorKind::NotFound, path));
        }
        let inode = Inode::default();
        state.live.insert(path.to_path_buf(), inode.clone());
        let added = Some((path.to_path_buf(), inode.clone()));
        state.unsynced.push(NameChange { dir, removed: None, added });
        Ok(self.handle(&state, inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.0.lock();
        state.check_power()?;
        let inode = state.inode(path)?;
        Ok(self.handle(&state, inode))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.0.lock();
        state.check_power()?;
        let inode = state.inode(path)?;
        Ok(inode.lock().live.clone())
    }

    fn map(&self, path: &Path) -> io::Result<Mapping> {
        Ok(Mapping::new(content::Aligned::copy_of(&self.read(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        let inode = state.inode(from)?;
        let (from_dir, to_dir) = (parent(from), parent(to));
        if !state.has_dir(&to_dir) {
            return Err(error(io::ErrorKind::NotFound, to));
        }
        if state.has_dir(to) {
            return Err(error(io::ErrorKind::IsADirectory, to));
        }
        state.live.remove(from);
        state.live.insert(to.to_path_buf(), inode.clone());
        let (removed, added) = (Some((from.to_path_buf(), inode.clone())), Some((to.to_path_buf(), inode)));
        if from_dir == to_dir {
            state.unsynced.push(NameChange { dir: to_dir, removed, added });
        } else {
            state.unsynced.push(NameChange { dir: to_dir, removed: None, added });
            state.unsynced.push(NameChange { dir: from_dir, removed, added: None });
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        let inode = state.inode(path)?;
        state.live.remove(path);
        let removed = Some((path.to_path_buf(), inode));
        state.unsynced.push(NameChange { dir: parent(path), removed, added: None });
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.begin()?;
        let files: Vec<PathBuf> = state.live.keys().filter(|path| path.starts_with(dir)).cloned().collect();
        for path in files {
            let inode = state.inode(&path)?;
            state.live.remove(&path);
            let dir = parent(&path);
            state.unsynced.push(NameChange { dir, removed: Some((path, inode)), added: None });
        }
        state.live_dirs.retain(|path| !path.starts_with(dir));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.0.lock();
        state.check_power()?;
        let inside = state.live.keys().chain(&state.live_dirs).filter(|path| parent(path) == dir);
        let mut names: Vec<String> =
            inside.filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.0.lock();
        state.check_power()?;
        Ok(state.live.contains_key(path) || state.has_dir(path))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        let fails = state.begin_sync()?;
        if !state.has_dir(dir) {
            return Err(error(io::ErrorKind::NotFound, dir));
        }
        if fails {
            return Err(io::Error::other("injected error of a directory sync"));
        }
        state.sync_names(dir);
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let state = self.0.lock();
        state.check_power()?;
        Ok(match state.full_at_bytes {
            Some(bytes) => bytes.saturating_sub(state.used_bytes()),
            None => 1 << 40,
        })
    }
}

struct FaultyFile {
    disk: Arc<Mutex<State>>,
    boot: u64,
    inode: Inode,
}

impl FaultyFile {
    /// Lock order: the disk, then the file.
    fn disk(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.lock();
        state.check_power()?;
        if state.boot == self.boot { Ok(state) } else { Err(no_power()) }
    }

    /// How far a file of `len` bytes may reach when it is asked to reach `end`.
    fn reach(state: &State, len: u64, end: u64) -> u64 {
        match state.full_at_bytes {
            Some(bytes) if end > len => end.min(len + bytes.saturating_sub(state.used_bytes())),
            _ => end,
        }
    }
}

impl DiskFile for FaultyFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk()?;
        state.begin()?;
        let len = self.inode.lock().live.len() as u64;
        let end = offset + data.len() as u64;
        let reach = FaultyFile::reach(&state, len, end);
        let fitting = reach.saturating_sub(offset) as usize;
        self.inode.lock().write(offset, &data[..fitting.min(data.len())]);
        if reach < end { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let _state = self.disk()?;
        if self.inode.lock().read(offset, data) { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn len(&self) -> io::Result<u64> {
        let _state = self.disk()?;
        Ok(self.inode.lock().live.len() as u64)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk()?;
        state.begin()?;
        let now = self.inode.lock().live.len() as u64;
        if FaultyFile::reach(&state, now, len) < len {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.inode.lock().truncate(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk()?;
        let fails = state.begin_sync()?;
        self.inode.lock().sync(fails);
        if fails { Err(io::Error::other("injected error of a file sync")) } else { Ok(()) }
    }
}
