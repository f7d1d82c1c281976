//! Why the log refused something, and who must act.

use std::io;

use vicinal_common::error::Error;
use vicinal_common::ids::ShardId;

/// Why a change of the log, or a read, did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The disk has no room. Nothing of the change was kept; the log works again as soon as there is room.
    #[error("the disk that holds the shard log is full: free some space, writes then succeed again ({0})")]
    Full(String),
    /// A write or sync failed earlier, so that nobody knows what the disk holds. The process must be restarted.
    #[error(
        "the shard log has stopped after a disk error ({0}). Nothing acknowledged is lost, but this node takes no more \
         writes: check the disk and the kernel messages, then restart the node; it reads back what is safe"
    )]
    Poisoned(String),
    /// Stored bytes fail their checksum or break the format.
    #[error("{0}")]
    Corrupt(String),
    /// Reading stored bytes failed.
    #[error("reading the shard log failed: {0}")]
    Io(String),
    /// The group was removed; take a new handle to begin it anew.
    #[error("shard {0} was removed from the log")]
    Removed(ShardId),
    /// The caller broke a rule of the log, such as leaving a gap between entries.
    #[error("the shard log cannot take this change: {0}")]
    Misuse(String),
}

impl From<LogError> for io::Error {
    fn from(e: LogError) -> io::Error {
        let kind = match &e {
            LogError::Full(_) => io::ErrorKind::StorageFull,
            LogError::Corrupt(_) => io::ErrorKind::InvalidData,
            LogError::Removed(_) => io::ErrorKind::NotFound,
            LogError::Misuse(_) => io::ErrorKind::InvalidInput,
            LogError::Poisoned(_) | LogError::Io(_) => io::ErrorKind::Other,
        };
        io::Error::new(kind, e)
    }
}

impl From<LogError> for Error {
    fn from(e: LogError) -> Error {
        match e {
            LogError::Full(_) => Error::Unavailable(e.to_string()),
            LogError::Corrupt(what) => Error::Corrupt(what),
            LogError::Removed(shard) => Error::NoSuchShard(shard),
            LogError::Poisoned(_) | LogError::Io(_) | LogError::Misuse(_) => Error::Internal(e.to_string()),
        }
    }
}
