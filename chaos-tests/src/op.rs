//! What a client did and what it was told: the words a history is written in.

use serde::Serialize;

/// One version of a point. Every write of a run has a serial of its own, which is in the payload: what is read names the
/// write that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Version {
    /// Id of the point.
    pub id: u64,
    /// Serial of the write.
    pub serial: u64,
}

/// Something a client asks for.
#[derive(Clone, Debug, Serialize)]
pub enum Operation {
    /// Upserts points.
    Write(Vec<Version>),
    /// Reads points by id.
    Read(Vec<u64>),
    /// Searches with the vector of a point.
    Search {
        /// Whose vector is searched with.
        near: Version,
        /// Whether that point was acknowledged before, in the session of this request: then it must be found.
        must_find: bool,
        /// Most hits.
        limit: usize,
        /// Hits there must be when all shards answered: the collection has held so many points from the beginning.
        at_least: usize,
    },
}

/// Shards answered of shards asked, as an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Coverage {
    /// Shards in the answer.
    pub answered: u64,
    /// Shards of the collection.
    pub asked: u64,
    /// Whether the body names as many missing shards as the header says.
    pub is_explained: bool,
}

impl Coverage {
    /// Whether nothing is missing.
    pub fn is_full(&self) -> bool {
        self.answered == self.asked
    }
}

/// One point of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// Which write it comes from, as its payload says.
    pub version: Version,
    /// Whether payload and vector are exactly what that write wrote.
    pub is_sound: bool,
    /// Score of a hit.
    pub score: Option<f64>,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// The points in the order of the answer.
    pub points: Vec<Seen>,
    /// What the answer says of its shards; an acknowledgement says nothing.
    pub coverage: Option<Coverage>,
}

/// How an operation ended, as far as its client can know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub enum Outcome {
    /// It was carried out.
    Ok(Found),
    /// It was certainly not carried out.
    Fail(String),
    /// Nobody told: it may have been carried out, may be later, or never.
    Unknown(String),
}

/// One operation of one client.
#[derive(Clone, Debug, Serialize)]
pub struct Record {
    /// The logical client: one session. After an unknown outcome the same task goes on as another one.
    pub client: u64,
    /// The coordinator it asked.
    pub via: String,
    /// Whether it sent a session token.
    pub has_token: bool,
    /// What it asked for.
    pub operation: Operation,
    /// What it was told.
    pub outcome: Outcome,
    /// When it asked, in microseconds since the history began.
    pub start: u64,
    /// When it was told.
    pub end: u64,
}

impl Record {
    /// What was found, when it was carried out.
    pub fn found(&self) -> Option<&Found> {
        match &self.outcome {
            Outcome::Ok(found) => Some(found),
            Outcome::Fail(_) | Outcome::Unknown(_) => None,
        }
    }

    /// Whether it was carried out.
    pub fn is_ok(&self) -> bool {
        self.found().is_some()
    }

    /// The versions it wrote, or tried to.
    pub fn written(&self) -> &[Version] {
        match &self.operation {
            Operation::Write(versions) => versions,
            Operation::Read(_) | Operation::Search { .. } => &[],
        }
    }

    /// Whether it is a write that was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        self.is_ok() && !self.written().is_empty()
    }

    /// When its effect can no longer come: at its answer, or never while nobody knows.
    pub fn settled(&self) -> u64 {
        match self.outcome {
            Outcome::Ok(_) | Outcome::Fail(_) => self.end,
            Outcome::Unknown(_) => u64::MAX,
        }
    }
}
