//! The bytes of one request, one by one: another program must find them as docs/formats/wire.md says.

use uuid::Uuid;

use super::*;
use crate::api::{Goal, ReadContext, SearchQuery};
use crate::consistency::Consistency;
use crate::filter::Filter;
use crate::ids::{CollectionId, Epoch, LogIndex, ShardId};

#[test]
fn a_search_request_is_these_bytes() {
    let filter = Filter::parse(&serde_json::json!({"must": [{"key": "a", "match": {"value": 1}}]})).unwrap();
    let query = SearchQuery {
        vector_name: "v".into(),
        goal: Goal::Nearest(Arc::new(vec![1.0, -2.0].into())),
        k: 10,
        filter: Some(Arc::new(filter)),
        distance_max: Some(0.5),
        ef: Some(64),
        exact: false,
    };
    let context = ReadContext {
        collection: CollectionId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)),
        epoch: Epoch(3),
        shards: vec![(ShardId(5), LogIndex(258))],
        consistency: Consistency::Linearizable,
        deadline: Instant::now(),
    };
    let request = SearchRequest { context, queries: Arc::new(vec![query]) };
    let frame = encode_request(NodeId(7), Duration::from_millis(1), &request).unwrap();
    let expected = [
        // head: magic, version, kind, length
        &b"VW\x07\x06\x97\x00\x00\x00"[..],
        // node, microseconds
        &b"\x07\0\0\0\0\0\0\0\xe8\x03\0\0\0\0\0\0"[..],
        // collection, epoch, consistency
        &b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff\x03\0\0\0\0\0\0\0\x01"[..],
        // shards: count, shard, floor
        &b"\x01\0\0\0\x05\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"[..],
        // queries: count; name, goal, kind of vector, vector, k, flags, distance, ef
        &b"\x01\0\0\0\x01\0\0\0v\0\0\x02\0\0\0\0\0\x80\x3f\0\0\0\xc0\x0a\0\0\0\0\0\0\0\x0e"[..],
        &b"\0\0\0\x3f\x40\0\0\0\0\0\0\0"[..],
        // filter
        &b"\x2a\0\0\0{\"must\":[{\"key\":\"a\",\"match\":{\"value\":1}}]}"[..],
    ]
    .concat();
    let (message, sum) = frame.split_at(frame.len() - 8);
    assert_eq!(message, expected, "{}", message.escape_ascii());
    assert_eq!(sum, xxhash_rust::xxh3::xxh3_64(message).to_le_bytes());
    assert_eq!(sum, [197, 103, 212, 164, 194, 175, 139, 222], "also when the checksum's code changes");
}
