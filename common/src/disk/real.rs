//! The file system of the operating system, with the calls that make content and names durable.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use memmap2::Mmap;

use super::{Disk, DiskFile, Mapping};

/// Files of the operating system (Linux, POSIX).
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

/// A directory is opened by its name; the parent of a bare name is the working directory.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// Treats "there is none" as the answer it is.
fn missing_is<T>(result: io::Result<T>, answer: T) -> io::Result<T> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(answer),
        other => other,
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            // An earlier process may have stopped between making the directory and syncing its name. A parent that may
            // not be read was made by somebody else, who answers for it.
            return match self.sync_dir(parent(dir)) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other,
            };
        }
        let missing: Vec<&Path> =
            dir.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.is_dir()).collect();
        fs::create_dir_all(dir)?;
        for made in missing {
            self.sync_dir(parent(made))?;
        }
        Ok(())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Box::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(RealFile(OpenOptions::new().read(true).write(true).open(path)?)))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn map(&self, path: &Path) -> io::Result<Mapping> {
        let file = File::open(path)?;
        if file.metadata()?.len() == 0 {
            // The kernel refuses to map nothing.
            return Ok(Mapping::new(Vec::new()));
        }
        // SAFETY: the contract of `Disk::map` forbids changing a file while it is mapped, and the store only ever
        // maps files that it has sealed. Removing the name leaves the mapped content in place.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Mapping::new(map))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        missing_is(fs::remove_dir_all(dir), ())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e),
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        // What is left for this user, without the blocks reserved for root.
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

struct RealFile(File);

impl DiskFile for RealFile {
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_all_at(data, offset)
    }

    fn read_at(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::super::replace_file;
    use super::*;

    #[test]
    fn files_keep_what_is_written() {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let dir = home.path().join("a/b");
        disk.create_dir_all(&dir).unwrap();
        disk.create_dir_all(&dir).unwrap();
        let path = dir.join("file");
        let file = disk.create(&path).unwrap();
        assert!(file.is_empty().unwrap());
        assert!(disk.map(&path).unwrap().is_empty());
        assert_eq!(disk.create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.write_at(4, b"rest").unwrap();
        file.write_at(0, b"the ").unwrap();
        file.sync().unwrap();
        disk.sync_dir(&dir).unwrap();
        assert_eq!(&disk.map(&path).unwrap()[..], b"the rest");
        assert_eq!(disk.map(&path).unwrap().as_ptr().align_offset(64), 0);

        let again = disk.open(&path).unwrap();
        let mut bytes = [0; 4];
        again.read_at(4, &mut bytes).unwrap();
        assert_eq!(&bytes, b"rest");
        assert_eq!(again.read_at(6, &mut bytes).err().unwrap().kind(), io::ErrorKind::UnexpectedEof);
        again.truncate(3).unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"the");
        again.truncate(5).unwrap();
        assert_eq!(disk.read(&path).unwrap(), b"the\0\0");
        assert!(disk.free_bytes(&dir).unwrap() > 0);
    }

    #[test]
    fn names_are_listed_renamed_and_removed() {
        let home = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let path = |name: &str| home.path().join(name);
        for name in ["b", "a"] {
            disk.create(&path(name)).unwrap();
        }
        assert_eq!(disk.list(home.path()).unwrap(), ["a", "b"]);
        disk.rename(&path("b"), &path("c")).unwrap();
        disk.remove(&path("a")).unwrap();
        assert_eq!(disk.list(home.path()).unwrap(), ["c"]);
        assert!(disk.exists(&path("c")).unwrap() && !disk.exists(&path("a")).unwrap());
        assert_eq!(disk.remove(&path("a")).unwrap_err().kind(), io::ErrorKind::NotFound);
        replace_file(&disk, &path("c"), b"one").unwrap();
        replace_file(&disk, &path("c"), b"two").unwrap();
        assert_eq!(disk.read(&path("c")).unwrap(), b"two");

        assert!(disk.list(&path("none")).unwrap().is_empty());
        disk.remove_dir_all(&path("none")).unwrap();
        disk.create_dir_all(&path("d/e")).unwrap();
        disk.remove_dir_all(&path("d")).unwrap();
        assert_eq!(disk.list(home.path()).unwrap(), ["c"]);
    }
}
