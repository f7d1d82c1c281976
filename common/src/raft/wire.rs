//! Raft messages as bytes. A request is the version, the id of the member it is meant for (8 bytes, little endian) and
//! the message in postcard form; an answer is the version and `Result<message, text of the error>` in postcard form.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Version of both forms.
const VERSION: u8 = 1;
/// Bytes before a request's message.
const HEAD: usize = 9;

/// Names of the calls, the last part of a route.
pub mod call {
    /// Append entries; also the heartbeat.
    pub const APPEND: &str = "append";
    /// Vote.
    pub const VOTE: &str = "vote";
    /// Ask whether a vote would be granted.
    pub const PRE_VOTE: &str = "pre-vote";
    /// Take over the lead.
    pub const TRANSFER_LEADER: &str = "transfer-leader";
    /// A snapshot in whatever form the group sends it; not answered by [`super::super::serve`].
    pub const SNAPSHOT: &str = "snapshot";
}

/// A request to member `target`.
pub fn encode_request(target: u64, message: &impl Serialize) -> Result<Bytes, String> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&target.to_le_bytes());
    postcard::to_extend(message, bytes).map(Bytes::from).map_err(|error| format!("request cannot be encoded: {error}"))
}

/// The message of a request that was meant for member `member`. An address that was given to another process must not
/// make that process answer for the old one: its log is not the log the sender believes in.
pub fn decode_request<T: DeserializeOwned>(member: u64, bytes: &[u8]) -> Result<T, String> {
    let (head, message) = bytes.split_at_checked(HEAD).ok_or("request is too short")?;
    if head[0] != VERSION {
        return Err(format!("request has version {}, this process knows {VERSION}", head[0]));
    }
    let mut target = [0; 8];
    target.copy_from_slice(&head[1..]);
    let target = u64::from_le_bytes(target);
    if target != member {
        return Err(format!("request is meant for member {target}, this is member {member}"));
    }
    postcard::from_bytes(message).map_err(|error| format!("request cannot be decoded: {error}"))
}

/// An answer.
pub fn encode_answer<T: Serialize>(answer: Result<T, String>) -> Bytes {
    let encoded = postcard::to_extend(&answer, vec![VERSION]).or_else(|error| {
        let text = format!("answer cannot be encoded: {error}");
        postcard::to_extend(&Err::<T, String>(text), vec![VERSION])
    });
    // Encoding a text cannot fail; an empty answer would be refused by the reader in any case.
    Bytes::from(encoded.unwrap_or_default())
}

/// What an answer says.
pub fn decode_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let (version, answer) = bytes.split_first().ok_or("answer is empty")?;
    if *version != VERSION {
        return Err(format!("answer has version {version}, this process knows {VERSION}"));
    }
    postcard::from_bytes::<Result<T, String>>(answer).map_err(|error| format!("answer cannot be decoded: {error}"))?
}
