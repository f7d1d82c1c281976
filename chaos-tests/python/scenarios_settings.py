"""Settings of collections through the client: each is shown and does what it says, or is refused by name; strict mode."""

import time

import numpy as np
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from sample import DIM, INDEXED_SECONDS, field, filled, fresh, must, points, value, vector
from scenarios_collections import refused

NAME = "settings"


def shown_in(config, path):
    """What a configuration shows at a path with dots."""
    found = config.model_dump()
    for part in path.split("."):
        found = (found or {}).get(part)
    return found


def created(client, expected, create):
    """Creates a collection that works, and whose configuration shows what is expected."""
    fresh(client, NAME, **create)
    config = client.get_collection(NAME).config
    for path, wanted in expected.items():
        assert shown_in(config, path) == wanted, f"{path} is {shown_in(config, path)}, not {wanted}"
    client.upsert(NAME, points(range(5)))
    assert len(client.query_points(NAME, query=vector("q"), limit=10).points) == 5


def done_or_refused_by_name(call, *names):
    """Whether it was done. What is not done must not be taken in silence: the error says what it is about."""
    try:
        call()
        return True
    except UnexpectedResponse as error:
        said = error.content.decode()
        assert error.status_code in (400, 422) and any(name in said for name in names), f"{names}: {error.status_code} {said}"
        return False


def settings_are_shown_as_they_were_given(client):
    created(client, {"hnsw_config.m": 24, "hnsw_config.ef_construct": 150},
            {"hnsw_config": models.HnswConfigDiff(m=24, ef_construct=150)})
    created(client, {"optimizer_config.indexing_threshold": 5_000, "params.shard_number": 2, "params.replication_factor": 3,
                     "params.write_consistency_factor": 2, "params.on_disk_payload": True},
            {"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=5_000), "shard_number": 2,
             "replication_factor": 3, "write_consistency_factor": 2, "on_disk_payload": True})
    own = models.VectorParams(size=DIM, distance=models.Distance.DOT, on_disk=True, hnsw_config=models.HnswConfigDiff(m=8))
    created(client, {"params.vectors.hnsw_config.m": 8, "params.vectors.on_disk": True}, {"vectors_config": own})
    created(client, {"metadata": {"model": "hashing", "deep": {"er": [1, 2]}}},
            {"metadata": {"model": "hashing", "deep": {"er": [1, 2]}}})


def other_settings_are_shown_or_refused_by_name(client):
    optimizers, hnsw = models.OptimizersConfigDiff, models.HnswConfigDiff
    cases = [
        ("wal_config.wal_capacity_mb", {"wal_config": models.WalConfigDiff(wal_capacity_mb=16)}, 16),
        ("optimizer_config.deleted_threshold", {"optimizers_config": optimizers(deleted_threshold=0.3)}, 0.3),
        ("optimizer_config.max_segment_size", {"optimizers_config": optimizers(max_segment_size=9_000)}, 9_000),
        ("optimizer_config.default_segment_number", {"optimizers_config": optimizers(default_segment_number=3)}, 3),
        ("hnsw_config.full_scan_threshold", {"hnsw_config": hnsw(full_scan_threshold=2_000)}, 2_000),
        ("hnsw_config.payload_m", {"hnsw_config": hnsw(payload_m=12)}, 12),
        ("hnsw_config.max_indexing_threads", {"hnsw_config": hnsw(max_indexing_threads=1)}, 1),
        ("params.sharding_method", {"sharding_method": models.ShardingMethod.CUSTOM}, "custom"),
        ("quantization_config.scalar.quantile", {"quantization_config": models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type="int8", quantile=0.9))}, 0.9),
        ("params.vectors", {"vectors_config": {}}, {}),
    ]
    done = [path for path, create, wanted in cases if done_or_refused_by_name(
        lambda: created(client, {path: wanted}, create) if path != "params.vectors" else fresh(client, NAME, **create),
        path.split(".")[-1], *create)]
    return f"shown: {done}"


def wait_until_indexed(client, name, count):
    until = time.monotonic() + INDEXED_SECONDS
    while True:
        info = client.get_collection(name)
        if info.status == models.CollectionStatus.GREEN and info.indexed_vectors_count >= count:
            return
        assert time.monotonic() < until, info
        time.sleep(0.1)


def quantized_vectors_are_found(client):
    kinds = {
        "scalar": models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8", always_ram=True)),
        "product": models.ProductQuantization(product=models.ProductQuantizationConfig(compression="x8", always_ram=True)),
        "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    rng = np.random.default_rng(5)
    base = rng.normal(size=(1_500, 32)).astype(np.float32)
    done = []
    for name, config in kinds.items():
        vectors = models.VectorParams(size=32, distance=models.Distance.COSINE)
        settings = {"vectors_config": vectors, "shard_number": 1, "quantization_config": config,
                    "optimizers_config": models.OptimizersConfigDiff(indexing_threshold=50)}
        if not done_or_refused_by_name(lambda: fresh(client, NAME, **settings), name):
            continue
        done.append(name)
        client.upload_collection(NAME, base, ids=range(len(base)), batch_size=250, wait=True)
        shown = client.get_collection(NAME).config.quantization_config
        assert shown == config, f"{name} is shown as {shown}"
        wait_until_indexed(client, NAME, len(base))
        params = models.SearchParams(quantization=models.QuantizationSearchParams(rescore=True, oversampling=8.0), hnsw_ef=256)
        found = 0
        for row in range(0, 200, 10):
            query = base[row] + rng.normal(size=32).astype(np.float32) * 0.1
            nearest = np.argsort(-(base @ query) / np.linalg.norm(base, axis=1))[:5]
            hits = client.query_points(NAME, query=query, limit=5, search_params=params).points
            found += len({hit.id for hit in hits} & set(nearest.tolist()))
        assert found >= 85, f"{name}: {found} of 100"
    assert "scalar" in done
    return f"done: {done}"


def collections_are_updated(client):
    filled(client, NAME, metadata={"keep": 1, "drop": 2})
    assert client.update_collection(NAME, hnsw_config=models.HnswConfigDiff(on_disk=True))
    assert client.update_collection(NAME, metadata={"drop": None, "new": 3})
    assert client.update_collection(NAME, collection_params=models.CollectionParamsDiff(
        write_consistency_factor=2, on_disk_payload=True))
    assert client.update_collection(NAME, strict_mode_config=models.StrictModeConfig(enabled=True, max_query_limit=500))
    wanted = {"hnsw_config.on_disk": True, "metadata": {"keep": 1, "new": 3}, "params.write_consistency_factor": 2,
              "params.on_disk_payload": True, "strict_mode_config.enabled": True, "strict_mode_config.max_query_limit": 500}
    config = client.get_collection(NAME).config
    assert {path: shown_in(config, path) for path in wanted} == wanted, config
    assert client.count(NAME).count == 60 and len(client.query_points(NAME, query=vector("q"), limit=60).points) == 60


def other_updates_are_shown_or_refused_by_name(client):
    filled(client, NAME)
    cases = [
        ("optimizer_config.indexing_threshold", 7_000,
         {"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=7_000)}),
        ("hnsw_config.m", 20, {"hnsw_config": models.HnswConfigDiff(m=20)}),
        ("params.vectors.hnsw_config.m", 12, {"vectors_config": {"": models.VectorParamsDiff(
            hnsw_config=models.HnswConfigDiff(m=12))}}),
        ("params.replication_factor", 3, {"collection_params": models.CollectionParamsDiff(replication_factor=3)}),
        ("params.read_fan_out_factor", 2, {"collection_params": models.CollectionParamsDiff(read_fan_out_factor=2)}),
    ]
    done = []
    for path, wanted, change in cases:
        before = shown_in(client.get_collection(NAME).config, path)
        if done_or_refused_by_name(lambda: client.update_collection(NAME, **change), path.split(".")[-1], *change):
            done.append(path)
            before = wanted
        shown = shown_in(client.get_collection(NAME).config, path)
        assert shown == before, f"{path} is {shown}, not {before}"
    return f"changed: {done}"


def quantization_is_switched_on_and_off(client):
    filled(client, NAME)
    config = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8"))
    assert client.update_collection(NAME, quantization_config=config)
    assert client.get_collection(NAME).config.quantization_config == config
    assert client.update_collection(NAME, quantization_config=models.Disabled.DISABLED)
    assert client.get_collection(NAME).config.quantization_config is None


def sparse_settings_are_shown(client):
    index = models.SparseIndexParams(on_disk=True)
    fresh(client, NAME, sparse_vectors_config={"s": models.SparseVectorParams(index=index, modifier=models.Modifier.IDF),
                                               "plain": models.SparseVectorParams()})
    shown = client.get_collection(NAME).config.params.sparse_vectors
    assert set(shown) == {"s", "plain"} and shown["s"].modifier == models.Modifier.IDF, shown
    assert shown["s"].index.on_disk is True and shown["plain"].modifier in (None, models.Modifier.NONE), shown
    index = models.SparseIndexParams(full_scan_threshold=900)
    change = {"s": models.SparseVectorParams(index=index)}
    if done_or_refused_by_name(lambda: client.update_collection(NAME, sparse_vectors_config=change), "sparse_vectors"):
        assert client.get_collection(NAME).config.params.sparse_vectors["s"].index.full_scan_threshold == 900


def sparse_vectors_are_enough(client):
    fresh(client, NAME, vectors_config={}, sparse_vectors_config={"s": models.SparseVectorParams()})
    sparse = models.SparseVector(indices=[1, 5], values=[1.0, 2.0])
    client.upsert(NAME, [models.PointStruct(id=1, vector={}, payload={"a": 1}), models.PointStruct(id=2, vector={"s": sparse})])
    assert client.retrieve(NAME, [1])[0].payload == {"a": 1}
    found = client.query_points(NAME, query=sparse, using="s").points
    assert [(hit.id, hit.score) for hit in found] == [(2, 5.0)], found


def strict_mode_limits_what_is_asked(client):
    filled(client, NAME, strict_mode_config=models.StrictModeConfig(
        enabled=True, max_query_limit=20, max_timeout=30, upsert_max_batchsize=70, search_max_batchsize=2, search_max_hnsw_ef=100,
        search_allow_exact=False, search_max_oversampling=2.0, filter_max_conditions=2, condition_max_size=3,
        unindexed_filtering_retrieve=False, unindexed_filtering_update=False, max_points_count=500, max_payload_index_count=2))
    shown = client.get_collection(NAME).config.strict_mode_config
    assert (shown.enabled, shown.max_query_limit, shown.condition_max_size) == (True, 20, 3), shown
    client.create_payload_index(NAME, "colour", field_schema="keyword", wait=True)
    query, params = vector("q"), models.SearchParams
    beam = params(hnsw_ef=101)
    colour = field("colour", match=models.MatchAny(any=["red", "blue"]))
    many = field("colour", match=models.MatchAny(any=["a", "b", "c", "d"]))
    quantization = models.QuantizationSearchParams(oversampling=3.0)
    cases = {
        'Limit exceeded 21 > 20 for "limit"': lambda: client.query_points(NAME, query=query, limit=21),
        'Limit exceeded 50 > 20 for "limit"': lambda: client.scroll(NAME, limit=50),
        'Limit exceeded 31 > 30 for "timeout"': lambda: client.query_points(NAME, query=query, timeout=31),
        'Limit exceeded 101 > 100 for "hnsw_ef"': lambda: client.query_points(NAME, query=query, search_params=beam),
        "xact": lambda: client.query_points(NAME, query=query, search_params=params(exact=True)),
        "oversampling": lambda: client.query_points(NAME, query=query, search_params=params(quantization=quantization)),
        "upsert": lambda: client.upsert(NAME, points(range(71))),
        "search": lambda: client.query_batch_points(NAME, [models.QueryRequest(query=query)] * 3),
        "filter": lambda: client.query_points(NAME, query=query, query_filter=must(colour, colour, colour)),
        "condition": lambda: client.query_points(NAME, query=query, query_filter=must(many)),
        'Index required but not found for "price"': lambda: client.query_points(
            NAME, query=query, query_filter=must(field("price", range=models.Range(gt=1)))),
        'Index required but not found for "row"': lambda: client.delete(NAME, must(value("row", 3))),
    }
    wrong = []
    for text, call in cases.items():
        try:
            said = refused(400, call).replace('\\"', '"')
            if text not in said:
                wrong.append(f"{text!r} is not in {said}")
        except (AssertionError, ValueError) as error:
            wrong.append(f"{text!r}: {error}")
    assert not wrong, "\n".join(wrong)
    assert len(client.query_points(NAME, query=query, limit=20, query_filter=must(colour)).points) == 20
    assert client.update_collection(NAME, strict_mode_config=models.StrictModeConfig(enabled=False))
    assert len(client.scroll(NAME, limit=50)[0]) == 50


def rates_are_limited(client):
    calls = {"read_rate_limit": lambda: client.count(NAME), "write_rate_limit": lambda: client.upsert(NAME, points([1]))}
    for limit, call in calls.items():
        filled(client, NAME, range(2), shard_number=1, strict_mode_config=models.StrictModeConfig(enabled=True, **{limit: 5}))
        try:
            for _ in range(40):
                call()
        except ResourceExhaustedResponse as error:
            assert 0 < error.retry_after_s <= 60, error
        except UnexpectedResponse as error:
            raise AssertionError(f"{limit}: {error.status_code} {error.content} {dict(error.headers)}") from error
        else:
            raise AssertionError(f"{limit}: 40 calls in a moment, 5 are allowed in a minute")


def sizes_are_limited(client):
    filled(client, NAME, range(10), shard_number=1,
           strict_mode_config=models.StrictModeConfig(enabled=True, max_points_count=20))
    until = time.monotonic() + 20
    try:
        for row in range(1_000):
            client.upsert(NAME, points(range(1_000 + 10 * row, 1_010 + 10 * row)))
            assert time.monotonic() < until, "20 points are allowed"
    except UnexpectedResponse as error:
        assert error.status_code == 400 and b"point" in error.content, error
    else:
        raise AssertionError("10,000 points where 20 are allowed")


ALONE = [
    settings_are_shown_as_they_were_given, other_settings_are_shown_or_refused_by_name, quantized_vectors_are_found,
    collections_are_updated, other_updates_are_shown_or_refused_by_name, quantization_is_switched_on_and_off,
    sparse_settings_are_shown, sparse_vectors_are_enough, strict_mode_limits_what_is_asked, rates_are_limited,
    sizes_are_limited,
]
