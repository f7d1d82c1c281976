//! Frames that nobody of ours has sent.

use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use xxhash_rust::xxh3::xxh3_64;

use super::*;
use crate::error::Error;

/// Reads a frame as every operation's request and answer; whether any of them took it.
fn is_read_by_any(frame: &Bytes) -> bool {
    fn one<R: Request>(frame: &Bytes) -> bool {
        // An answer may be an error in good order: only the words tell it from a frame that cannot be read.
        let refused = |error: &Error| error.to_string().contains("cannot be read");
        decode_request::<R>(NODE, frame).is_ok() || !decode_answer::<R>(frame).is_err_and(|error| refused(&error))
    }
    one::<SearchRequest>(frame)
        || one::<RetrieveRequest>(frame)
        || one::<ScrollRequest>(frame)
        || one::<CountRequest>(frame)
        || one::<FacetRequest>(frame)
        || one::<FrequencyRequest>(frame)
        || one::<ClusterStatsRequest>(frame)
        || one::<DigestRequest>(frame)
        || one::<WriteRequest>(frame)
        || one::<ReplicaSpec>(frame)
        || one::<FoundGroup>(frame)
        || one::<ChangeMembers>(frame)
        || one::<DropReplica>(frame)
        || one::<Tune>(frame)
        || one::<Status>(frame)
}

/// A frame of every kind.
fn frames() -> Vec<Bytes> {
    let mut runner = TestRunner::deterministic();
    macro_rules! some {
        ($strategy:expr) => {
            $strategy.new_tree(&mut runner).unwrap().current()
        };
    }
    let context = some!(context());
    let mut frames = Vec::new();
    let mut request = |frame: Result<Bytes>| frames.push(frame.unwrap());
    let queries = Arc::new(vec![some!(query()), some!(query())]);
    request(encode_request(NODE, WITHIN, &SearchRequest { context: context.clone(), queries }));
    let (ids, parts) = (Arc::new(vec![some!(id()), some!(id())]), some!(parts()));
    request(encode_request(NODE, WITHIN, &RetrieveRequest { context: context.clone(), ids, parts: parts.clone() }));
    let filter = Some(some!(filter()));
    let scroll =
        ScrollRequest { context: context.clone(), order: some!(order()), limit: 3, filter: filter.clone(), parts };
    request(encode_request(NODE, WITHIN, &scroll));
    let facet = FacetRequest { context: context.clone(), key: "a".into(), filter: filter.clone() };
    request(encode_request(NODE, WITHIN, &facet));
    let indices = Arc::new(vec![1, 7]);
    let frequency =
        FrequencyRequest { context: context.clone(), vector_name: "s".into(), indices, filter: filter.clone() };
    request(encode_request(NODE, WITHIN, &frequency));
    request(encode_request(NODE, WITHIN, &CountRequest { context: context.clone(), filter }));
    let map = MapDigest(7);
    request(encode_request(NODE, WITHIN, &ClusterStatsRequest { context: context.clone(), map }));
    request(encode_request(NODE, WITHIN, &DigestRequest { context }));
    for _ in 0..6 {
        request(encode_request(NODE, WITHIN, &some!(write())));
    }
    request(encode_request(NODE, WITHIN, &some!(spec())));
    request(encode_request(NODE, WITHIN, &FoundGroup { shard: some!(shard()), voters: some!(members()) }));
    request(encode_request(NODE, WITHIN, &DropReplica(some!(shard()))));
    request(encode_request(NODE, WITHIN, &Status));
    for _ in 0..3 {
        frames.push(encode_answer::<SearchRequest>(&some!(answers(hits()))));
        frames.push(encode_answer::<RetrieveRequest>(&some!(answers(points()))));
        frames.push(encode_answer::<CountRequest>(&some!(answers(any::<u64>()))));
        frames.push(encode_answer::<FacetRequest>(&some!(answers(facets()))));
        frames.push(encode_answer::<FrequencyRequest>(&some!(answers(frequencies()))));
        frames.push(encode_answer::<ClusterStatsRequest>(&some!(answers(clusters()))));
        frames.push(encode_answer::<WriteRequest>(&some!(result(ack()))));
        frames.push(encode_answer::<Status>(&some!(result(status()))));
    }
    frames
}

#[test]
fn truncated_and_flipped_frames_are_refused() {
    for frame in frames() {
        assert!(is_read_by_any(&frame));
        for length in 0..frame.len() {
            assert!(!is_read_by_any(&frame.slice(..length)), "cut to {length} of {}", frame.len());
        }
        for at in 0..frame.len() {
            for flip in [1, 0x40, 0x80, 0xff] {
                let mut flipped = frame.to_vec();
                flipped[at] ^= flip;
                assert!(!is_read_by_any(&flipped.into()), "byte {at} of {} flipped by {flip}", frame.len());
            }
        }
        let longer = [&frame[..], &[0]].concat();
        assert!(!is_read_by_any(&longer.into()));
    }
}

/// Puts the right length and checksum on whatever the message is: what a hostile or another program could send.
fn sealed(mut message: Vec<u8>) -> Bytes {
    let length = (message.len() - 8) as u32;
    message[4..8].copy_from_slice(&length.to_le_bytes());
    let sum = xxh3_64(&message);
    message.extend_from_slice(&sum.to_le_bytes());
    message.into()
}

#[test]
fn messages_that_break_their_format_cost_nothing() {
    for frame in frames() {
        let message = &frame[..frame.len() - 8];
        for at in 8..message.len() {
            is_read_by_any(&sealed(message[..at].to_vec()));
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut changed = message.to_vec();
                changed[at] = value;
                is_read_by_any(&sealed(changed.clone()));
                // As a length this is 4 GiB.
                let end = (at + 4).min(changed.len());
                changed[at..end].fill(0xff);
                is_read_by_any(&sealed(changed));
            }
        }
        let longer = sealed([message, &[0]].concat());
        assert!(!is_read_by_any(&longer), "bytes after the message");
    }
}

proptest! {
    #[test]
    fn random_messages_are_refused_without_panic(kind in 0u8..12, flags in 0u8..4, noise in any::<Vec<u8>>()) {
        let head = [b'V', b'W', 1, kind | flags << 6, 0, 0, 0, 0];
        is_read_by_any(&sealed([&head[..], &NODE.0.to_le_bytes(), &[9; 8], &noise].concat()));
        is_read_by_any(&noise.into());
    }
}

#[test]
fn refusals_say_what_is_wrong() {
    let frame = encode_request(NODE, WITHIN, &Status).unwrap();
    let other = decode_request::<Status>(NodeId(1), &frame).unwrap_err();
    assert!(matches!(&other, Error::Unavailable(why) if why.contains("meant for node")), "{other}");
    let late = encode_request(NODE, Duration::ZERO, &Status).unwrap();
    assert!(matches!(decode_request::<Status>(NODE, &late), Err(Error::Timeout(_))));
    let mut newer = frame.to_vec();
    newer[2] = 9;
    let newer = decode_request::<Status>(NODE, &newer.into()).unwrap_err();
    assert!(newer.to_string().contains("version 9"), "{newer}");
}

#[test]
fn what_is_larger_than_the_limit_is_not_sent() {
    let mut request = TestRunner::deterministic();
    let mut request = write().new_tree(&mut request).unwrap().current();
    request.op = crate::api::WriteOp::DeleteByFilter(crate::api::LoggedFilter {
        evaluator: 1,
        json: " ".repeat(INTERNAL_BODY_BYTES_MAX),
    });
    assert!(matches!(encode_request(NODE, WITHIN, &request), Err(Error::TooLarge(_))));
}
