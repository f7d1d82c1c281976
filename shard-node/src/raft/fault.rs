//! Why a raft group stopped, kept apart from raft's own error, which is only text.

use parking_lot::Mutex;
use vicinal_common::error::Error;

use crate::log::LogError;

/// What can be done about a stopped group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FaultKind {
    /// The disk was full: the group is started again from its log once there is room.
    DiskFull,
    /// The log or the shard said that it cannot be trusted, or used, any more in this process.
    Final,
    /// Anything else: worth another try.
    Unknown,
}

/// The first error that storage gave to raft since the group was started.
#[derive(Default)]
pub(super) struct Fault(Mutex<Option<(FaultKind, String)>>);

impl Fault {
    /// Remembers an error of the shard or of what was decoded, if it is the first.
    pub(super) fn note(&self, error: &Error) {
        let kind = match error {
            Error::Corrupt(_) | Error::NoSuchShard(_) => FaultKind::Final,
            // What the shard says when a manifest or a snapshot finds no room.
            Error::Unavailable(_) => FaultKind::DiskFull,
            _ => FaultKind::Unknown,
        };
        self.remember(kind, error);
    }

    /// Remembers an error of the log, if it is the first.
    pub(super) fn note_log(&self, error: &LogError) {
        let kind = match error {
            LogError::Full(_) => FaultKind::DiskFull,
            LogError::Poisoned(_) | LogError::Corrupt(_) | LogError::Removed(_) => FaultKind::Final,
            LogError::Io(_) | LogError::Misuse(_) => FaultKind::Unknown,
        };
        self.remember(kind, error);
    }

    fn remember(&self, kind: FaultKind, error: &dyn std::fmt::Display) {
        self.0.lock().get_or_insert_with(|| (kind, error.to_string()));
    }

    /// The error; forgotten with this call.
    pub(super) fn take(&self) -> Option<(FaultKind, String)> {
        self.0.lock().take()
    }
}
