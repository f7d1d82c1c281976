"""The sync client: all scenarios, and a table of which of its methods they cover."""

from qdrant_client import QdrantClient

import scenarios_collections
import scenarios_points
import scenarios_queries
import scenarios_settings
import scenarios_vectors
from twin import alone, twin

TWINS = scenarios_points.TWINS + scenarios_queries.TWINS + scenarios_vectors.TWINS
ALONE = scenarios_collections.ALONE + scenarios_settings.ALONE + scenarios_vectors.ALONE

COVERED = [
    "batch_update_points", "clear_payload", "close", "cluster_status", "collection_cluster_info", "collection_exists", "count",
    "create_collection", "create_payload_index", "delete", "delete_collection", "delete_payload", "delete_payload_index",
    "delete_vectors", "facet", "get_aliases", "get_collection", "get_collection_aliases", "get_collections", "info",
    "overwrite_payload", "query_batch_points", "query_points", "query_points_groups", "recreate_collection", "retrieve", "scroll",
    "search_matrix_offsets", "search_matrix_pairs", "set_payload", "update_collection", "update_collection_aliases",
    "update_vectors", "upload_collection", "upload_points", "upsert",
]
# The methods that no scenario calls, by the reason.
SNAPSHOTS = "snapshots are another part of the API"
SHARD_KEYS = "custom sharding is another part of the API"
BY_HAND = "shards are placed by the cluster, not by hand"
NOT_IN_SCHEMA = "the operation is not in the schema of API 1.19"
INFERENCE = "it asks for a model on the client's side, no server takes part"
CLIENT_ONLY = "it calls no operation of its own"
OUT_OF_SCOPE = {
    "create_full_snapshot": SNAPSHOTS, "create_shard_snapshot": SNAPSHOTS, "create_snapshot": SNAPSHOTS,
    "delete_full_snapshot": SNAPSHOTS, "delete_shard_snapshot": SNAPSHOTS, "delete_snapshot": SNAPSHOTS,
    "list_full_snapshots": SNAPSHOTS, "list_shard_snapshots": SNAPSHOTS, "list_snapshots": SNAPSHOTS,
    "recover_shard_snapshot": SNAPSHOTS, "recover_snapshot": SNAPSHOTS,
    "create_shard_key": SHARD_KEYS, "delete_shard_key": SHARD_KEYS, "list_shard_keys": SHARD_KEYS,
    "cluster_collection_update": BY_HAND, "recover_current_peer": BY_HAND, "remove_peer": BY_HAND,
    "cluster_telemetry": NOT_IN_SCHEMA, "create_vector_name": NOT_IN_SCHEMA, "delete_vector_name": NOT_IN_SCHEMA,
    "get_optimizations": NOT_IN_SCHEMA,
    "get_embedding_size": INFERENCE, "list_image_models": INFERENCE, "list_late_interaction_multimodal_models": INFERENCE,
    "list_late_interaction_text_models": INFERENCE, "list_sparse_models": INFERENCE, "list_text_models": INFERENCE,
    "grpc_collections": "gRPC", "grpc_points": "gRPC",
    "http": CLIENT_ONLY, "init_options": CLIENT_ONLY, "migrate": CLIENT_ONLY, "DEFAULT_BATCH_SIZE": CLIENT_ONLY,
}


def checks_with(kind):
    """All scenarios with clients of that class, and that they answered through every method in scope."""
    called = {"close"}
    checks = [twin(scenario, kind, called) for scenario in TWINS] + [alone(scenario, kind, called) for scenario in ALONE]

    def every_method_is_covered_or_out_of_scope(client):
        methods = {name for name in dir(kind) if not name.startswith("_")}
        told = set(COVERED) | set(OUT_OF_SCOPE)
        assert methods == told and not set(COVERED) & set(OUT_OF_SCOPE), f"the table is not of this client: {methods ^ told}"
        missing = set(COVERED) - called
        assert not missing, f"no scenario had an answer of {sorted(missing)}"
        return f"{len(COVERED)} covered, {len(OUT_OF_SCOPE)} out of scope"

    return [*checks, every_method_is_covered_or_out_of_scope]


CHECKS = checks_with(QdrantClient)
