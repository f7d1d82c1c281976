//! What a caller sees of a node that is away, slow, cut off, or another one.

use crate::api::WriteOp;
use crate::api::wire::{encode_answer, encode_request};
use crate::consistency::Consistency;
use crate::ids::{CollectionId, Epoch, RequestId};
use bytes::Bytes;
use uuid::Uuid;

use super::*;

/// Says the same to every call.
enum Says {
    Unreachable,
    Broken,
    Nothing,
    Bytes(Bytes),
}

#[async_trait]
impl Transport for Says {
    async fn call(&self, to: &Address, _: &str, _: Bytes, timeout: Duration) -> Result<Bytes, TransportError> {
        match self {
            Says::Unreachable => Err(TransportError::Unreachable(to.clone(), "refused".into())),
            Says::Broken => Err(TransportError::Unknown(to.clone(), "reset".into())),
            Says::Bytes(bytes) => Ok(bytes.clone()),
            Says::Nothing => {
                tokio::time::sleep(timeout).await;
                Err(TransportError::Unknown(to.clone(), "silence".into()))
            }
        }
    }
}

fn node(says: Says) -> RemoteNode {
    RemoteNode::new(NodeId(7), Address("http://n7".into()), Arc::new(says))
}

fn count(within: Duration) -> CountRequest {
    let context = ReadContext {
        collection: CollectionId(Uuid::from_u128(1)),
        epoch: Epoch(1),
        shards: vec![(ShardId(3), LogIndex(9)), (ShardId(4), LogIndex(0))],
        consistency: Consistency::ReadYourWrites,
        deadline: Instant::now() + within,
    };
    CountRequest { context, filter: None }
}

fn write(within: Duration) -> WriteRequest {
    WriteRequest {
        request: RequestId(1),
        part: 0,
        collection: CollectionId(Uuid::from_u128(1)),
        epoch: Epoch(1),
        shard: ShardId(3),
        op: WriteOp::Delete(Vec::new()),
        deadline: Instant::now() + within,
    }
}

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_node_that_is_away_is_unavailable() {
    for (says, words) in [(Says::Unreachable, "node 7 cannot be reached"), (Says::Broken, "may have carried out")] {
        let node = node(says);
        let answers = node.count(count(LONG)).await;
        assert_eq!(answers.iter().map(|answer| answer.shard.0).collect::<Vec<_>>(), [3, 4]);
        for answer in answers {
            assert!(matches!(&answer.result, Err(Error::Unavailable(why)) if why.contains(words)), "{answer:?}");
        }
        let written = node.write(write(LONG)).await;
        assert!(matches!(&written, Err(Error::Unavailable(why)) if why.contains(words)), "{written:?}");
    }
}

#[tokio::test]
async fn a_silent_node_is_a_timeout() {
    let node = node(Says::Nothing);
    let began = Instant::now();
    let written = node.write(write(SHORT)).await;
    assert!(matches!(&written, Err(Error::Timeout(why)) if why.contains("node 7")), "{written:?}");
    assert!(node.count(count(SHORT)).await.iter().all(|answer| matches!(answer.result, Err(Error::Timeout(_)))));
    assert!(began.elapsed() < SHORT * 10);
}

#[tokio::test]
async fn nothing_is_sent_without_time() {
    let node = node(Says::Broken);
    assert!(matches!(node.write(write(Duration::ZERO)).await, Err(Error::Timeout(_))));
}

#[tokio::test]
async fn what_cannot_be_read_is_unavailable() {
    for bytes in [
        Bytes::new(),
        Bytes::from_static(b"<html>not ours</html>"),
        encode_request(NodeId(7), LONG, &Status).unwrap(),
        encode_answer::<DropReplica>(&Ok(())),
    ] {
        let written = node(Says::Bytes(bytes)).write(write(LONG)).await;
        assert!(matches!(&written, Err(Error::Unavailable(why)) if why.contains("cannot be read")), "{written:?}");
    }
}

#[tokio::test]
async fn the_errors_of_a_node_arrive_as_they_are() {
    let error = Error::WrongLeader { shard: ShardId(3), hint: Some(NodeId(8)), term: 5 };
    let says = Says::Bytes(encode_answer::<WriteRequest>(&Err(error.clone())));
    assert_eq!(node(says).write(write(LONG)).await, Err(error.clone()));
    let says = Says::Bytes(encode_answer::<CountRequest>(&Err(error.clone())));
    assert!(node(says).count(count(LONG)).await.iter().all(|answer| answer.result == Err(error.clone())));
}
