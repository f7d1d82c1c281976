//! The encoding: every message survives, nothing else gets through.

mod golden;
mod hostile;
mod messages;

use std::time::Duration;

use bytes::Bytes;
use std::sync::Arc;

use proptest::prelude::*;
use tokio::time::Instant;

use self::messages::*;
use super::*;
use crate::api::{
    ChangeMembers, ClusterStatsRequest, CountRequest, DigestRequest, FacetRequest, FoundGroup, FrequencyRequest,
    KeepMaps, PutMap, ReplicaSpec, RetrieveRequest, ScrollRequest, SearchRequest, Tune, WriteRequest,
};
use crate::filter::Tokenization;
use crate::ids::{Epoch, MapDigest, MapVersion};
use crate::payload_index::{FieldType, PayloadIndex};
use crate::publish::MapRef;
use crate::tuning::{GraphPlacement, Tuning};

const NODE: NodeId = NodeId(0xabcd_ef01_2345_6789);
const WITHIN: Duration = Duration::from_secs(7);

/// Requests and answers in words, without the instants that differ at the two ends.
fn words(message: &impl std::fmt::Debug) -> String {
    let text = format!("{message:?}");
    let mut rest = text.as_str();
    let mut words = String::new();
    while let Some(at) = rest.find("Instant {") {
        words.push_str(&rest[..at]);
        let inside = &rest[at..];
        rest = &inside[inside.find('}').unwrap()..];
    }
    words + rest
}

fn request_survives<R: Request + std::fmt::Debug>(request: R) {
    let frame = encode_request(NODE, WITHIN, &request).unwrap();
    let before = Instant::now();
    let read: R = decode_request(NODE, &frame).unwrap();
    assert_eq!(words(&read), words(&request));
    if let Some(deadline) = read.deadline() {
        assert!(deadline >= before + WITHIN && deadline <= Instant::now() + WITHIN);
    }
    assert_eq!(encode_request(NODE, WITHIN, &read).unwrap(), frame, "the same bytes again");
}

fn answer_survives<R: Request>(answer: Result<R::Answer>)
where
    R::Answer: std::fmt::Debug,
{
    let frame = encode_answer::<R>(&answer);
    let read = decode_answer::<R>(&frame);
    assert_eq!(words(&read), words(&answer));
    assert_eq!(encode_answer::<R>(&read), frame, "the same bytes again");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn requests_survive(
        context in context(),
        queries in prop::collection::vec(query(), 0..4),
        ids in prop::collection::vec(id(), 0..9),
        parts in parts(),
        filter in prop::option::of(filter()),
        order in order(),
        limit in any::<u32>(),
        write in write(),
    ) {
        request_survives(SearchRequest { context: context.clone(), queries: Arc::new(queries) });
        request_survives(RetrieveRequest { context: context.clone(), ids: Arc::new(ids), parts: parts.clone() });
        let limit = limit as usize;
        request_survives(ScrollRequest { context: context.clone(), order, limit, filter: filter.clone(), parts });
        request_survives(FacetRequest { context: context.clone(), key: "a.b".into(), filter: filter.clone() });
        let indices = Arc::new(vec![3, 9]);
        let vector_name = "s".into();
        request_survives(FrequencyRequest { context: context.clone(), vector_name, indices, filter: filter.clone() });
        request_survives(CountRequest { context: context.clone(), filter });
        request_survives(ClusterStatsRequest { context: context.clone(), map: MapDigest(u128::MAX - limit as u128) });
        request_survives(DigestRequest { context });
        request_survives(write);
    }

    #[test]
    fn control_requests_survive(shard in shard(), members in members(), spec in spec()) {
        let collection = spec.collection;
        request_survives(spec);
        request_survives(FoundGroup { shard, voters: members.clone() });
        let filled = members.keys().copied().take(1).collect();
        request_survives(ChangeMembers { shard, voters: members.clone(), learners: members, filled });
        request_survives(DropReplica(shard));
        let text = PayloadIndex::text(Tokenization { stopwords: vec!["x".into()], ..Tokenization::default() });
        let payload_indexes = [("a[].b".to_owned(), FieldType::Geo.into()), ("c".to_owned(), text)].into();
        let graphs = GraphPlacement { on_disk: true, vectors: [("d".to_owned(), false)].into() };
        let map = MapRef {
            version: MapVersion(shard.0),
            digest: MapDigest(9),
            bytes: 5,
            shards: vec![shard],
            vector: "d".to_owned(),
        };
        let tuning = Tuning {
            revision: shard.0,
            payload_indexes,
            graphs,
            unindexed: ["d".to_owned()].into(),
            search_shards: [(shard, vec![NodeId(1)])].into(),
            home_shards: [(shard, vec![NodeId(2)])].into(),
            epoch: Epoch(3),
            map: Some(map),
            clustering: Some(map_ref(shard.0 ^ 1)),
        };
        request_survives(Tune { shard, collection, tuning });
        let digest = MapDigest(u128::from(shard.0) << 70);
        request_survives(PutMap { collection, digest, bytes: Bytes::from_static(b"map") });
        request_survives(GetMap(digest));
        request_survives(KeepMaps { collection, as_of: MapVersion(3), digests: vec![digest] });
        request_survives(Status);
    }

    #[test]
    fn answers_survive(
        hits in answers(hits()),
        points in answers(points()),
        count in answers(any::<u64>()),
        facets in answers(facets()),
        frequencies in answers(frequencies()),
        clusters in answers(clusters()),
        digest in answers(digest()),
        ack in result(ack()),
        change in result(change()),
        status in result(status()),
        nothing in result(Just(())),
    ) {
        answer_survives::<SearchRequest>(hits);
        answer_survives::<RetrieveRequest>(points.clone());
        answer_survives::<ScrollRequest>(points);
        answer_survives::<CountRequest>(count);
        answer_survives::<FacetRequest>(facets);
        answer_survives::<FrequencyRequest>(frequencies);
        answer_survives::<ClusterStatsRequest>(clusters);
        answer_survives::<DigestRequest>(digest);
        answer_survives::<WriteRequest>(ack);
        answer_survives::<ChangeMembers>(change);
        answer_survives::<Status>(status);
        answer_survives::<ReplicaSpec>(nothing.clone());
        answer_survives::<FoundGroup>(nothing.clone());
        answer_survives::<GetMap>(Ok(Bytes::from_static(b"map")));
        answer_survives::<PutMap>(nothing.clone());
        answer_survives::<KeepMaps>(nothing.clone());
        answer_survives::<Tune>(nothing.clone());
        answer_survives::<DropReplica>(nothing);
    }
}

#[test]
fn routes_name_their_operation() {
    for operation in Operation::ALL {
        assert_eq!(Operation::from_route(operation.route()), Some(*operation));
        assert!(operation.kind() < ANSWER);
    }
    for route in ["shard/", "shard/nothing", "search", "raft/shard/1/append", "shard/search/"] {
        assert_eq!(Operation::from_route(route), None, "{route}");
    }
}
