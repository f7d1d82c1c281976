//! One error type for what a request can end in: it says who must act, and each kind maps to one HTTP status.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, NodeId, ShardId};

/// Shorthand for results of this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a request did not succeed. The text is written for the person who reads the answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum Error {
    /// The client must change the request: 400.
    #[error("Wrong input: {0}")]
    BadInput(String),
    /// A field has a value outside its range: 422.
    #[error("Validation error in JSON body: [{field}: {message}]")]
    Validation {
        /// Path of the field in the body.
        field: String,
        /// What is wrong and what the limit is.
        message: String,
    },
    /// What was named does not exist: 404.
    #[error("Not found: {0}")]
    NotFound(String),
    /// What should be created exists: 409.
    #[error("Wrong input: {0}")]
    Conflict(String),
    /// The body is larger than the limit: 413.
    #[error("Payload too large: {0}")]
    TooLarge(String),
    /// The server is at a limit; the same request may succeed after a pause: 429.
    #[error("Too many requests: {0}")]
    Overloaded(String),
    /// The request is right but the server cannot carry it out now (node away, no leader, disk full); retry: 503.
    #[error("Service unavailable: {0}")]
    Unavailable(String),
    /// The deadline passed. For a write: it may or may not have been carried out; repeating it is safe: 408.
    #[error("Timeout error: {0}")]
    Timeout(String),
    /// This replica does not lead its shard. Retried by the coordinator; a client never sees it.
    #[error("shard {shard} is led elsewhere (term {term})")]
    WrongLeader {
        /// The shard asked.
        shard: ShardId,
        /// The leader as far as the answering replica knows.
        hint: Option<NodeId>,
        /// The answering replica's term.
        term: u64,
    },
    /// The request was routed by another version of the token table. Retried by the coordinator after a refresh.
    #[error("shard {shard} is at epoch {current}, the request was routed at epoch {asked}")]
    WrongEpoch {
        /// The shard asked.
        shard: ShardId,
        /// The epoch in the request.
        asked: Epoch,
        /// The epoch of the shard.
        current: Epoch,
    },
    /// The node holds no replica of this shard (or the shard belongs to another collection).
    #[error("no replica of shard {0} on this node")]
    NoSuchShard(ShardId),
    /// Stored data failed its checksum or breaks its format: 500, and the replica stops serving.
    #[error("Data corruption: {0}")]
    Corrupt(String),
    /// A bug or an I/O error that no one outside can mend: 500.
    #[error("Service internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The HTTP status this error answers with.
    pub fn http_status(&self) -> u16 {
        match self {
            Error::BadInput(_) => 400,
            Error::Validation { .. } => 422,
            Error::NotFound(_) => 404,
            Error::Conflict(_) => 409,
            Error::TooLarge(_) => 413,
            Error::Overloaded(_) => 429,
            Error::Timeout(_) => 408,
            Error::Unavailable(_) | Error::WrongLeader { .. } | Error::WrongEpoch { .. } | Error::NoSuchShard(_) => 503,
            Error::Corrupt(_) | Error::Internal(_) => 500,
        }
    }

    /// The same error with a remark behind its text. Errors without a text of their own stay as they are.
    pub fn with_note(self, note: &str) -> Error {
        let noted = |text: String| format!("{text} ({note})");
        match self {
            Error::BadInput(text) => Error::BadInput(noted(text)),
            Error::Validation { field, message } => Error::Validation { field, message: noted(message) },
            Error::NotFound(text) => Error::NotFound(noted(text)),
            Error::Conflict(text) => Error::Conflict(noted(text)),
            Error::TooLarge(text) => Error::TooLarge(noted(text)),
            Error::Overloaded(text) => Error::Overloaded(noted(text)),
            Error::Unavailable(text) => Error::Unavailable(noted(text)),
            Error::Timeout(text) => Error::Timeout(noted(text)),
            Error::Corrupt(text) => Error::Corrupt(noted(text)),
            Error::Internal(text) => Error::Internal(noted(text)),
            Error::WrongLeader { .. } | Error::WrongEpoch { .. } | Error::NoSuchShard(_) => self,
        }
    }

    /// Whether the same request, sent again later, can succeed without anybody changing it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Error::Overloaded(_)
            | Error::Unavailable(_)
            | Error::Timeout(_)
            | Error::WrongLeader { .. }
            | Error::WrongEpoch { .. }
            | Error::NoSuchShard(_) => true,
            Error::BadInput(_)
            | Error::Validation { .. }
            | Error::NotFound(_)
            | Error::Conflict(_)
            | Error::TooLarge(_)
            | Error::Corrupt(_)
            | Error::Internal(_) => false,
        }
    }
}
