//! Who a shard node is: decided once, kept with its data. A wiped disk gets a new identity, never the old one.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use vicinal_common::clock::Clock;
use vicinal_common::disk::{Disk, replace_file};
use vicinal_common::error::{Error, Result};
use vicinal_common::ids::{ClusterId, NodeId};
use vicinal_common::rng::Rng;

const FILE: &str = "identity";
/// First bytes of the file, then CRC-32 of the rest (little endian), then postcard.
const MAGIC: &[u8; 8] = b"VICNODE\x01";
const HEAD: usize = 12;

/// What the identity file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Raft identity, drawn when the directory was first used.
    pub(super) node: NodeId,
    /// The operator's name for the node.
    pub(super) name: String,
    /// The cluster it belongs to, once it knows.
    pub(super) cluster: Option<ClusterId>,
    /// When it was made, for people.
    pub(super) created_ms: u64,
}

impl Identity {
    /// Reads the identity of the data in `dir`, or makes one for an empty directory. `BadInput` when the data belongs
    /// to a node of another name, `Corrupt` when there is data without a readable identity.
    pub(super) fn load_or_create(
        disk: &dyn Disk,
        dir: &Path,
        name: &str,
        rng: &dyn Rng,
        clock: &dyn Clock,
    ) -> Result<Identity> {
        let path = path_in(dir);
        let failed = |e: std::io::Error| Error::Internal(format!("{}: {e}", path.display()));
        if disk.exists(&path).map_err(failed)? {
            let identity = decode(&disk.read(&path).map_err(failed)?)
                .map_err(|e| Error::Corrupt(format!("{}: {e}", path.display())))?;
            if identity.name != name {
                return Err(Error::BadInput(format!(
                    "the data in {} belongs to shard node {:?}, this process was started as {name:?}",
                    dir.display(),
                    identity.name
                )));
            }
            return Ok(identity);
        }
        // The identity is the first thing ever written. Without it, a new one would let this node vote twice.
        for other in [super::LOG_DIR, super::SHARDS_DIR] {
            if disk.exists(&dir.join(other)).map_err(failed)? {
                return Err(Error::Corrupt(format!(
                    "{} holds data but no {FILE} file: restore the file, or start this node with an empty directory \
                     and let it copy its shards from the other replicas",
                    dir.display()
                )));
            }
        }
        let identity =
            Identity { node: rng.node_id(), name: name.to_owned(), cluster: None, created_ms: clock.unix_millis() };
        identity.save(disk, dir)?;
        Ok(identity)
    }

    /// Durable when it returns.
    pub(super) fn save(&self, disk: &dyn Disk, dir: &Path) -> Result<()> {
        let path = path_in(dir);
        let body = postcard::to_stdvec(self).map_err(|e| Error::Internal(format!("encode the identity: {e}")))?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
        bytes.extend_from_slice(&body);
        replace_file(disk, &path, &bytes).map_err(|e| Error::Internal(format!("write {}: {e}", path.display())))
    }
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let (head, body) = bytes.split_at_checked(HEAD).ok_or("the identity file is too short")?;
    if head[..8] != MAGIC[..] {
        return Err("this is no identity file of this program version".into());
    }
    if head[8..] != crc32fast::hash(body).to_le_bytes() {
        return Err("the identity file fails its checksum".into());
    }
    postcard::from_bytes(body).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use vicinal_common::clock::SystemClock;
    use vicinal_common::disk::RealDisk;
    use vicinal_common::rng::SeededRng;

    use super::*;

    #[test]
    fn an_identity_is_made_once_and_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, rng, clock) = (RealDisk, SeededRng::from_seed(1), SystemClock);
        let load = |name: &str| Identity::load_or_create(&disk, dir.path(), name, &rng, &clock);
        let first = load("a").unwrap();
        assert_eq!(load("a").unwrap(), first);
        assert!(matches!(load("b"), Err(Error::BadInput(_))));
        let path = path_in(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(matches!(load("a"), Err(Error::Corrupt(_))));
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(dir.path().join(super::super::LOG_DIR)).unwrap();
        assert!(matches!(load("a"), Err(Error::Corrupt(_))), "data without an identity is refused");
    }
}
