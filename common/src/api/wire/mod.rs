//! The one encoding of [`super::ShardApi`] between processes: a frame per request and per answer, raw little-endian on
//! the query path, postcard for control messages. docs/formats/wire.md describes every byte.
//!
//! The sending side calls [`encode_request`] and [`decode_answer`], the receiving side [`serve`].

mod answer;
mod clusters;
mod control;
mod frame;
mod goal;
mod operation;
mod query;
mod serve;
#[cfg(test)]
mod tests;
mod write;

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

pub use control::{DropReplica, GetMap, Status};
pub use frame::{Reader, Writer};
pub use operation::Operation;
pub use serve::serve;

use crate::error::{Error, Result};
use crate::ids::NodeId;
use crate::limits::{INTERNAL_ANSWER_BYTES_MAX, INTERNAL_BODY_BYTES_MAX, REQUEST_TIMEOUT_SECONDS_MAX};

/// First part of the routes of the shard API; the operation's name follows.
pub const ROUTE_PREFIX: &str = "shard/";

/// Frame kind of an answer: the operation's, with this added.
const ANSWER: u8 = 0x40;
/// Frame kind of an answer that is an error of the whole request.
const REFUSAL: u8 = 0x80;

/// Something that has a form in a frame.
pub trait Wire: Sized {
    /// Appends the form.
    fn put(&self, to: &mut Writer);

    /// Reads the form. Whatever the bytes are, this ends in a value or an error, and allocates in proportion to them.
    fn read(from: &mut Reader<'_>) -> Result<Self>;
}

/// A request of the shard API.
pub trait Request: Wire {
    /// Which one.
    const OPERATION: Operation;
    /// What a node answers.
    type Answer: Wire;

    /// When the caller gives up, if the request says so.
    fn deadline(&self) -> Option<Instant>;
}

/// The frame of a request to `node` that is given up after `within`. `TooLarge` beyond the limit of a request.
pub fn encode_request<R: Request>(node: NodeId, within: Duration, request: &R) -> Result<Bytes> {
    let mut to = Writer::new(R::OPERATION.kind(), INTERNAL_BODY_BYTES_MAX);
    to.u64(node.0);
    to.u64(u64::try_from(within.as_micros()).unwrap_or(u64::MAX));
    request.put(&mut to);
    to.finish().ok_or_else(|| {
        Error::TooLarge(format!(
            "a {} request to a shard node is larger than {INTERNAL_BODY_BYTES_MAX} bytes: send fewer queries or points \
             at once",
            R::OPERATION
        ))
    })
}

/// The request in a frame that reached `node`. Its deadline is this process's own: what was left when it was sent.
/// `Timeout` when nothing was left, `Unavailable` for a damaged frame or one meant for another node.
pub fn decode_request<R: Request>(node: NodeId, frame: &Bytes) -> Result<R> {
    let mut from = Reader::open(frame)?;
    if from.kind() != R::OPERATION.kind() {
        return Err(from.broken("it is of another operation than its route"));
    }
    // An address may have been given to another process, whose shards are not those the sender believes in.
    let target = NodeId(from.u64()?);
    if target != node {
        return Err(Error::Unavailable(format!("the request is meant for node {target}, this is node {node}")));
    }
    let longest = Duration::from_secs(REQUEST_TIMEOUT_SECONDS_MAX);
    let within = Duration::from_micros(from.u64()?).min(longest);
    if within.is_zero() {
        return Err(Error::Timeout(format!(
            "the deadline of a {} request had passed before it was sent",
            R::OPERATION
        )));
    }
    from.set_deadline(Instant::now() + within);
    let request = R::read(&mut from)?;
    from.end()?;
    Ok(request)
}

/// The frame of an answer.
pub fn encode_answer<R: Request>(answer: &Result<R::Answer>) -> Bytes {
    let kind = R::OPERATION.kind();
    let error = match answer {
        Ok(answer) => {
            let mut to = Writer::new(kind | ANSWER, INTERNAL_ANSWER_BYTES_MAX);
            answer.put(&mut to);
            match to.finish() {
                Some(frame) => return frame,
                None => &Error::TooLarge(format!(
                    "the answer of a shard node is larger than {INTERNAL_ANSWER_BYTES_MAX} bytes: ask for fewer \
                     points, or without their vectors and payload"
                )),
            }
        }
        Err(error) => error,
    };
    let mut to = Writer::new(kind | REFUSAL, usize::MAX);
    error.put(&mut to);
    // Without a limit there is always a frame; a reader refuses an empty one in any case.
    to.finish().unwrap_or_default()
}

/// What an answer says; `Unavailable` for a damaged frame.
pub fn decode_answer<R: Request>(frame: &Bytes) -> Result<R::Answer> {
    let mut from = Reader::open(frame)?;
    let kind = R::OPERATION.kind();
    if from.kind() == kind | REFUSAL {
        let error = Error::read(&mut from)?;
        from.end()?;
        return Err(error);
    }
    if from.kind() != kind | ANSWER {
        return Err(from.broken("it answers another operation"));
    }
    let answer = R::Answer::read(&mut from)?;
    from.end()?;
    Ok(answer)
}
