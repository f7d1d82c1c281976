//! The receiving side: hands a request to the group's raft and encodes what it says.

use std::fmt::Display;

use bytes::Bytes;
use openraft::Raft;
use openraft::storage::RaftStateMachine;

use super::network::GroupConfig;
use super::wire::{call, decode_request, encode_answer};

/// Answers a request to `<prefix>/<name>`; `None` when `name` is not one of raft's calls. Snapshots are received by the
/// group's owner, which knows their form. Errors of raft travel inside the answer.
pub async fn serve<C, M>(raft: &Raft<C, M>, name: &str, body: &[u8]) -> Option<Bytes>
where
    C: GroupConfig,
    M: RaftStateMachine<C>,
{
    let member = *raft.node_id();
    let answer = match name {
        call::APPEND => match decode_request(member, body) {
            Ok(rpc) => encode_answer(raft.append_entries(rpc).await.map_err(text)),
            Err(error) => encode_answer::<()>(Err(error)),
        },
        call::VOTE => match decode_request(member, body) {
            Ok(rpc) => encode_answer(raft.vote(rpc).await.map_err(text)),
            Err(error) => encode_answer::<()>(Err(error)),
        },
        call::PRE_VOTE => match decode_request(member, body) {
            Ok(rpc) => encode_answer(raft.pre_vote(rpc).await.map_err(text)),
            Err(error) => encode_answer::<()>(Err(error)),
        },
        call::TRANSFER_LEADER => match decode_request(member, body) {
            Ok(rpc) => encode_answer(raft.handle_transfer_leader(rpc).await.map_err(text)),
            Err(error) => encode_answer::<()>(Err(error)),
        },
        _ => return None,
    };
    Some(answer)
}

fn text(error: impl Display) -> String {
    error.to_string()
}
