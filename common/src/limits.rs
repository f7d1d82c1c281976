//! Every bound in one place: a queue, a body or a loop without a limit from here is a defect.

/// Largest vector dimension.
pub const DIM_MAX: usize = 65_536;
/// Largest number of named vectors in a collection.
pub const VECTOR_NAMES_MAX: usize = 64;
/// Longest name of a collection, alias or vector, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// Most shards in a collection.
pub const SHARDS_PER_COLLECTION_MAX: u32 = 256;
/// Most replicas of a shard that vote.
pub const REPLICATION_MAX: u32 = 5;
/// Raft groups that one shard node carries.
pub const GROUPS_PER_NODE_MAX: usize = 64;
/// Largest REST request body, in bytes.
pub const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Most points in one request.
pub const BATCH_POINTS_MAX: usize = 100_000;
/// Most queries in one batch request.
pub const BATCH_QUERIES_MAX: usize = 1_000;
/// Deepest nesting of prefetches.
pub const PREFETCH_DEPTH_MAX: usize = 8;
/// Most prefetches in one query, on all levels.
pub const PREFETCHES_MAX: usize = 64;
/// Deepest nesting of a formula's expressions.
pub const FORMULA_DEPTH_MAX: usize = 32;
/// Most expressions in a formula, conditions of its filters among them, and most defaults.
pub const FORMULA_NODES_MAX: usize = 1_024;
/// Most points that are read at a time to evaluate a formula.
pub const FORMULA_PAGE_POINTS: usize = 1_000;
/// Most examples of a recommendation.
pub const EXAMPLES_MAX: usize = 1_000;
/// Most judged examples of relevance feedback: each is compared with each.
pub const FEEDBACK_MAX: usize = 64;
/// Most different values of a payload key that one shard counts.
pub const FACET_VALUES_MAX: usize = 1_000_000;
/// Most bytes of all those values that are texts.
pub const FACET_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most values of a sparse vector.
pub const SPARSE_VALUES_MAX: usize = 65_536;
/// Most vectors in one multivector.
pub const MULTIVECTOR_MAX: usize = 4_096;
/// Most numbers in one multivector: its vectors together.
pub const MULTIVECTOR_VALUES_MAX: usize = 1 << 20;
/// Largest sample of a search matrix.
pub const MATRIX_SAMPLE_MAX: usize = 1_000;
/// Most candidates that maximal marginal relevance chooses from.
pub const MMR_CANDIDATES_MAX: usize = 16_384;
/// Most components of vectors (points times dimension) that a coordinator compares with each other for one request: it
/// holds them all at once.
pub const COMPARED_COMPONENTS_MAX: usize = 32 * 1024 * 1024;
/// Most components of the vectors that the queries of one request are sent to the shards with: a vector counts as often as
/// it is compared with, because it is sent as often. A dimension of a sparse vector counts as two.
pub const GOAL_COMPONENTS_MAX: usize = 16 * 1024 * 1024;
/// Most components of the examples that the queries of one request take averages of: an example counts as often as it is
/// named.
pub const AVERAGED_COMPONENTS_MAX: usize = 256 * 1024 * 1024;
/// Largest `limit + offset` of a query, `limit * group_size` of a query by groups, and largest scroll page.
pub const RESULTS_MAX: usize = 100_000;
/// Neighbours per node of an HNSW graph: the smallest number and the largest.
pub const HNSW_M: std::ops::RangeInclusive<usize> = 2..=256;
/// Beam of an HNSW build: the smallest and the largest.
pub const HNSW_EF_CONSTRUCTION: std::ops::RangeInclusive<usize> = 4..=10_000;
/// Largest query beam.
pub const EF_MAX: usize = 100_000;
/// Largest factor by which a query may ask for more candidates than hits.
pub const OVERSAMPLING_MAX: f64 = 1_000.0;
/// Largest payload of one point, in bytes of JSON.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest metadata of a collection, in bytes of JSON: all of it is in the memory of every coordinator.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Deepest nesting of a payload.
pub const PAYLOAD_DEPTH_MAX: usize = 64;
/// Deepest nesting of a filter.
pub const FILTER_DEPTH_MAX: usize = 32;
/// Most conditions in one filter.
pub const FILTER_CONDITIONS_MAX: usize = 65_536;
/// Ids of clusters: all are smaller, and a filter names at most so many.
pub const CLUSTER_IDS_MAX: usize = 1 << 20;
/// Points whose clusters a filter, or a sample, is about.
pub const HISTORY_POINTS_MAX: usize = 10_000;
/// How many clusters a clustering may have.
pub const CLUSTERS: std::ops::RangeInclusive<usize> = 2..=65_536;
/// A cluster for so many points at most.
pub const POINTS_PER_CLUSTER_MIN: usize = 16;
/// Most full-text conditions in one filter of a client: each cuts the texts of a point again. A logged filter may have
/// more: what was accepted once is decided by every replay.
pub const FILTER_TEXT_CONDITIONS_MAX: usize = 256;
/// Longest query of a full-text condition, in bytes: a phrase is compared with a text in steps of 64 tokens of the query.
pub const TEXT_QUERY_BYTES_MAX: usize = 8 * 1024;
/// Most stopwords of one's own of a text index, and their bytes in all.
pub const STOPWORDS_MAX: usize = 1_000;
/// See [`STOPWORDS_MAX`].
pub const STOPWORDS_BYTES_MAX: usize = 8 * 1024;
/// Bytes of JSON that parameters of text indexes may take in the filters of one request: each full-text condition carries
/// them.
pub const FILTER_TOKENIZATION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most payload indexes of a collection: each is a file beside each segment.
pub const PAYLOAD_INDEXES_MAX: usize = 64;
/// Longest key path of a payload index or a change of payloads, in bytes.
pub const KEY_PATH_BYTES_MAX: usize = 1_024;
/// Largest command in a shard's raft log, in bytes; a larger write is cut into several.
pub const COMMAND_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of points that applying one entry rewrites before the rest is left to another entry. Replicas must agree on
/// where a page ends: a change of this value is a change of the log's meaning.
pub const EDIT_PAGE_BYTES: usize = COMMAND_BYTES_MAX;
/// Most key paths, or names of vectors, in one change of points.
pub const EDIT_KEYS_MAX: usize = 1_024;
/// Most operations in one batch of changes.
pub const BATCH_OPERATIONS_MAX: usize = 1_000;
/// Most bytes in one append RPC between replicas (at least one entry is always sent).
pub const APPEND_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Largest body of a request between processes, in bytes. The largest are the queries of one REST body, whose numbers
/// may take half as many bytes in JSON as they do here.
pub const INTERNAL_BODY_BYTES_MAX: usize = 2 * BODY_BYTES_MAX + 16 * 1024 * 1024;
/// Largest answer between processes, in bytes: a page of points can be far larger than any request.
pub const INTERNAL_ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// REST requests that one coordinator works on at a time; more are refused at once.
pub const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// Requests remembered per shard so that a retry is applied once.
pub const REQUEST_TABLE_MAX: usize = 4_096;
/// Seconds a request may take when it names no `timeout`.
pub const REQUEST_TIMEOUT_SECONDS: u64 = 60;
/// Largest `timeout` a request may name, in seconds.
pub const REQUEST_TIMEOUT_SECONDS_MAX: u64 = 3_600;
/// Tokens in a collection's token table: an id's token is the top 12 bits of its hash.
pub const TOKENS: usize = 4_096;
/// Virtual nodes per shard on the ring that proposes the token table.
pub const VIRTUAL_NODES: usize = 256;

// A table of tokens can only be spread evenly over clearly fewer shards than tokens.
const _: () = assert!(SHARDS_PER_COLLECTION_MAX as usize * 16 <= TOKENS);
/// Most search shards of a collection routed by cluster.
pub const SEARCH_SHARDS_MAX: u32 = 128;
/// Longest map of a collection routed by cluster, in bytes.
pub const MAP_BYTES_MAX: usize = 48 * 1024 * 1024;
const _: () = assert!(MAP_BYTES_MAX + 4096 <= INTERNAL_BODY_BYTES_MAX);

const _: () = assert!(INTERNAL_BODY_BYTES_MAX >= 2 * COMMAND_BYTES_MAX + APPEND_BYTES_MAX as usize);
// What queries are made of leaves room for their filters.
const _: () = assert!(GOAL_COMPONENTS_MAX * size_of::<f32>() + 8 * 1024 * 1024 <= INTERNAL_BODY_BYTES_MAX);
