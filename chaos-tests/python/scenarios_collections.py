"""Collections through the client: settings, aliases, payload indexes, strict mode, and what is refused."""

import time

import httpx
import numpy as np
from qdrant_client import models
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import UnexpectedResponse

from sample import DIM, INDEXED_SECONDS, field, filled, fresh, must, points, value, vector
from twin import address_of

NAME = "collections"
VECTORS = models.VectorParams(size=DIM, distance=models.Distance.COSINE)


def refused(status, call):
    """The text of an error that has that status."""
    try:
        call()
    except UnexpectedResponse as error:
        assert error.status_code == status, error
        return error.content.decode()
    raise AssertionError(f"expected status {status}")


def collections_live_and_die(client):
    fresh(client, NAME)
    assert client.collection_exists(NAME) and not client.collection_exists("nobody")
    assert NAME in [known.name for known in client.get_collections().collections]
    info = client.get_collection(NAME)
    assert (info.points_count, info.status, info.config.params.vectors) == (0, models.CollectionStatus.GREEN, VECTORS), info
    client.upsert(NAME, points())
    assert client.get_collection(NAME).points_count == 60
    assert client.recreate_collection(NAME, vectors_config=VECTORS) and client.count(NAME).count == 0
    refused(409, lambda: client.create_collection(NAME, vectors_config=VECTORS))
    assert client.delete_collection(NAME) and not client.collection_exists(NAME)
    assert not client.delete_collection(NAME)
    for call in (lambda: client.get_collection(NAME), lambda: client.count(NAME), lambda: client.query_points(NAME, query=[1.0]),
                 lambda: client.upsert(NAME, points())):
        assert "doesn't exist" in refused(404, call)


def a_name_may_have_any_character(client):
    for name in ("wörter & mehr", "a+b%20c#d&e;f"):
        fresh(client, name)
        client.upsert(name, points(range(3)))
        assert client.count(name).count == 3 and name in [known.name for known in client.get_collections().collections]
        client.delete_collection(name)


def echoed(client, expected, create):
    """Creates a collection; its configuration must show what is expected, at paths with dots."""
    fresh(client, NAME, **create)
    config = client.get_collection(NAME).config.model_dump()
    for path, wanted in expected.items():
        found = config
        for part in path.split("."):
            found = (found or {}).get(part)
        assert found == wanted, f"{path} is {found}, not {wanted}"
    client.upsert(NAME, points(range(5)))
    assert len(client.query_points(NAME, query=vector("q"), limit=10).points) == 5


def settings_are_shown_as_they_were_given(client):
    echoed(client, {"hnsw_config.m": 24, "hnsw_config.ef_construct": 150, "hnsw_config.full_scan_threshold": 2_000},
           {"hnsw_config": models.HnswConfigDiff(m=24, ef_construct=150, full_scan_threshold=2_000)})
    echoed(client, {"optimizer_config.indexing_threshold": 5_000, "params.shard_number": 2, "params.replication_factor": 3,
                    "params.write_consistency_factor": 2, "params.on_disk_payload": True},
           {"optimizers_config": models.OptimizersConfigDiff(indexing_threshold=5_000), "shard_number": 2,
            "replication_factor": 3, "write_consistency_factor": 2, "on_disk_payload": True})
    own = models.VectorParams(size=DIM, distance=models.Distance.DOT, on_disk=True, hnsw_config=models.HnswConfigDiff(m=8))
    echoed(client, {"params.vectors.hnsw_config.m": 8, "params.vectors.on_disk": True}, {"vectors_config": own})
    echoed(client, {"metadata": {"model": "hashing", "deep": {"er": [1, 2]}}},
           {"metadata": {"model": "hashing", "deep": {"er": [1, 2]}}})


def other_settings_are_shown_or_refused_by_name(client):
    """What is not done here must not be taken in silence."""
    cases = [
        ("wal_config.wal_capacity_mb", {"wal_config": models.WalConfigDiff(wal_capacity_mb=16)}, 16),
        ("optimizer_config.deleted_threshold", {"optimizers_config": models.OptimizersConfigDiff(deleted_threshold=0.3)}, 0.3),
        ("optimizer_config.max_segment_size", {"optimizers_config": models.OptimizersConfigDiff(max_segment_size=9_000)}, 9_000),
        ("hnsw_config.payload_m", {"hnsw_config": models.HnswConfigDiff(payload_m=12)}, 12),
        ("hnsw_config.max_indexing_threads", {"hnsw_config": models.HnswConfigDiff(max_indexing_threads=1)}, 1),
        ("params.sharding_method", {"sharding_method": models.ShardingMethod.CUSTOM}, "custom"),
        ("quantization_config.turbo", {"quantization_config": models.TurboQuantization(
            turbo=models.TurboQuantQuantizationConfig(always_ram=True))}, None),
    ]
    for path, create, wanted in cases:
        try:
            echoed(client, {path: wanted} if wanted is not None else {}, create)
        except UnexpectedResponse as error:
            assert error.status_code in (400, 422), error
            said = error.content.decode()
            assert any(part in said for part in path.split(".")[-1:] + list(create)), f"{path}: {said}"


def quantized_vectors_are_found(client):
    kinds = {
        "scalar": models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8", quantile=0.99, always_ram=True)),
        "product": models.ProductQuantization(product=models.ProductQuantizationConfig(compression="x8", always_ram=True)),
        "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
    }
    rng = np.random.default_rng(5)
    base = rng.normal(size=(1_500, 32)).astype(np.float32)
    for name, config in kinds.items():
        fresh(client, NAME, vectors_config=models.VectorParams(size=32, distance=models.Distance.COSINE), shard_number=1,
              quantization_config=config, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=50))
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


def wait_until_indexed(client, name, count):
    until = time.monotonic() + INDEXED_SECONDS
    while True:
        info = client.get_collection(name)
        if info.status == models.CollectionStatus.GREEN and info.indexed_vectors_count >= count:
            return
        assert time.monotonic() < until, info
        time.sleep(0.1)


def collections_are_updated(client):
    filled(client, NAME, metadata={"keep": 1, "drop": 2})
    assert client.update_collection(NAME, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=7_000))
    assert client.update_collection(NAME, hnsw_config=models.HnswConfigDiff(m=20, on_disk=True))
    assert client.update_collection(NAME, vectors_config={"": models.VectorParamsDiff(hnsw_config=models.HnswConfigDiff(m=12))})
    assert client.update_collection(NAME, metadata={"drop": None, "new": 3})
    assert client.update_collection(NAME, collection_params=models.CollectionParamsDiff(
        write_consistency_factor=2, on_disk_payload=True))
    assert client.update_collection(NAME, strict_mode_config=models.StrictModeConfig(enabled=True, max_query_limit=500))
    config = client.get_collection(NAME).config
    assert config.optimizer_config.indexing_threshold == 7_000
    assert (config.hnsw_config.m, config.hnsw_config.on_disk) == (20, True)
    assert config.params.vectors.hnsw_config.m == 12
    assert config.metadata == {"keep": 1, "new": 3}, config.metadata
    assert (config.params.write_consistency_factor, config.params.on_disk_payload) == (2, True)
    assert (config.strict_mode_config.enabled, config.strict_mode_config.max_query_limit) == (True, 500)
    assert client.count(NAME).count == 60 and len(client.query_points(NAME, query=vector("q"), limit=60).points) == 60


def quantization_is_switched_on_and_off(client):
    filled(client, NAME)
    config = models.ScalarQuantization(scalar=models.ScalarQuantizationConfig(type="int8"))
    assert client.update_collection(NAME, quantization_config=config)
    assert client.get_collection(NAME).config.quantization_config == config
    assert client.update_collection(NAME, quantization_config=models.Disabled.DISABLED)
    assert client.get_collection(NAME).config.quantization_config is None


def sparse_settings_are_shown_and_updated(client):
    sparse = models.SparseVectorParams(index=models.SparseIndexParams(full_scan_threshold=500, on_disk=True),
                                       modifier=models.Modifier.IDF)
    fresh(client, NAME, sparse_vectors_config={"s": sparse})
    shown = client.get_collection(NAME).config.params.sparse_vectors["s"]
    assert (shown.modifier, shown.index.full_scan_threshold, shown.index.on_disk) == (models.Modifier.IDF, 500, True), shown
    client.update_collection(NAME, sparse_vectors_config={"s": models.SparseVectorParams(
        index=models.SparseIndexParams(full_scan_threshold=900))})
    assert client.get_collection(NAME).config.params.sparse_vectors["s"].index.full_scan_threshold == 900


def only_sparse_vectors_or_none(client):
    for create in ({"vectors_config": {}, "sparse_vectors_config": {"s": models.SparseVectorParams()}}, {"vectors_config": {}}):
        fresh(client, NAME, **create)
        client.upsert(NAME, [models.PointStruct(id=1, vector={}, payload={"a": 1})])
        assert client.retrieve(NAME, [1])[0].payload == {"a": 1}


def aliases_are_switched_at_once(client):
    for name, rows in (("alias-one", 3), ("alias-two", 5)):
        filled(client, name, range(rows))
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="alias-one", alias_name="now"))
    assert client.update_collection_aliases([create]) and client.count("now").count == 3
    swap = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="now")),
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="alias-two", alias_name="now")),
            models.RenameAliasOperation(rename_alias=models.RenameAlias(old_alias_name="now", new_alias_name="then"))]
    assert client.update_collection_aliases(swap) and client.count("then").count == 5
    assert [alias.alias_name for alias in client.get_collection_aliases("alias-two").aliases] == ["then"]
    assert client.get_collection_aliases("alias-one").aliases == []
    assert ("then", "alias-two") in [(alias.alias_name, alias.collection_name) for alias in client.get_aliases().aliases]
    client.upsert("then", points(range(10, 12)))
    assert client.count("alias-two").count == 7
    for name in ("alias-one", "alias-two"):
        client.delete_collection(name)
    refused(404, lambda: client.count("then"))


def payload_indexes_of_every_type(client):
    filled(client, NAME)
    text = models.TextIndexParams(type="text", tokenizer=models.TokenizerType.WORD, min_token_len=2, max_token_len=15,
                                  lowercase=True, phrase_matching=True)
    indexes = {"colour": "keyword", "row": "integer", "price": "float", "even": "bool", "place": "geo", "at": "datetime",
               "uuid": "uuid", "text": text, "tags": models.KeywordIndexParams(type="keyword", is_tenant=True, on_disk=False),
               "deep.er.level": models.IntegerIndexParams(type="integer", lookup=True, range=False)}
    for key, schema in indexes.items():
        done = client.create_payload_index(NAME, key, field_schema=schema, wait=True)
        assert done.status == models.UpdateStatus.COMPLETED, done
    shown = client.get_collection(NAME).payload_schema
    assert set(shown) == set(indexes), shown
    for key, schema in indexes.items():
        wanted = schema if isinstance(schema, str) else schema.type
        assert shown[key].data_type == wanted, (key, shown[key])
    assert shown["colour"].points == 60 and shown["text"].points == 60
    for key in ("text", "tags", "deep.er.level"):
        given = indexes[key].model_dump(exclude_none=True)
        assert {name: getattr(shown[key].params, name) for name in given} == given, shown[key]
    assert client.delete_payload_index(NAME, "colour").status == models.UpdateStatus.COMPLETED
    assert "colour" not in client.get_collection(NAME).payload_schema


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
        "batch": lambda: client.query_batch_points(NAME, [models.QueryRequest(query=query)] * 3),
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


def the_cluster_shows_itself(client):
    filled(client, NAME, shard_number=2, replication_factor=3)
    cluster = client.cluster_status()
    assert cluster.status == "enabled" and cluster.raft_info.term > 0, cluster
    placed = client.collection_cluster_info(NAME)
    assert placed.shard_count == 2 and len(placed.remote_shards) + len(placed.local_shards) == 6, placed
    assert client.info().version.count(".") == 2 and client.info().title


def mistakes_are_explained(client):
    fresh(client, NAME)
    mistakes = {
        "vector": lambda: client.query_points(NAME, query=[1.0, 2.0]),
        "sound": lambda: client.query_points(NAME, query=vector("q"), using="sound"),
        "limit": lambda: client.query_points(NAME, query=vector("q"), limit=0),
        "-1": lambda: client.retrieve(NAME, [-1]),
    }
    for text, call in mistakes.items():
        try:
            call()
        except UnexpectedResponse as error:
            assert error.status_code in (400, 422) and text.encode() in error.content.lower(), f"{text}: {error}"
        else:
            raise AssertionError(f"{text}: there is no error")


def older_paths_answer_like_the_query(client):
    """What clients before the query API call, as it stood in the API's earlier versions."""
    filled(client, NAME)
    url = f"{address_of(client)}/collections/{NAME}/points"

    def post(path, body):
        answer = httpx.post(f"{url}/{path}", json=body, timeout=30)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()["result"]

    def ids(hits):
        return [hit["id"] for hit in hits]

    q, red = vector("q"), {"must": [{"key": "colour", "match": {"value": "red"}}]}
    search = {"vector": q, "limit": 5, "filter": red, "with_payload": True}
    wanted = [hit.id for hit in client.query_points(NAME, query=q, limit=5, query_filter=must(value("colour", "red"))).points]
    assert ids(post("search", search)) == wanted
    assert [ids(hits) for hits in post("search/batch", {"searches": [search, search]})] == [wanted] * 2
    recommend = {"positive": [1], "negative": [2], "strategy": "best_score", "limit": 6}
    query = models.RecommendQuery(recommend=models.RecommendInput(positive=[1], negative=[2], strategy="best_score"))
    wanted = [hit.id for hit in client.query_points(NAME, query=query, limit=6).points]
    assert ids(post("recommend", recommend)) == wanted
    assert [ids(hits) for hits in post("recommend/batch", {"searches": [recommend]})] == [wanted]
    discover = {"target": 1, "context": [{"positive": 2, "negative": 3}], "limit": 6}
    query = models.DiscoverQuery(discover=models.DiscoverInput(target=1, context=[models.ContextPair(positive=2, negative=3)]))
    wanted = [hit.id for hit in client.query_points(NAME, query=query, limit=6).points]
    assert ids(post("discover", discover)) == wanted
    assert [ids(hits) for hits in post("discover/batch", {"searches": [discover]})] == [wanted]
    grouped = {"group_by": "colour", "group_size": 2, "limit": 3}
    for path, body, query in (("search/groups", {"vector": q}, q), ("recommend/groups", {"positive": [1]}, 1)):
        wanted = client.query_points_groups(NAME, query=query, **grouped).groups
        found = post(path, body | grouped)["groups"]
        assert [(group["id"], ids(group["hits"])) for group in found] == [
            (group.id, [hit.id for hit in group.hits]) for group in wanted], path


ALONE = [
    collections_live_and_die, a_name_may_have_any_character, settings_are_shown_as_they_were_given,
    other_settings_are_shown_or_refused_by_name, quantized_vectors_are_found, collections_are_updated,
    quantization_is_switched_on_and_off, sparse_settings_are_shown_and_updated, only_sparse_vectors_or_none,
    aliases_are_switched_at_once, payload_indexes_of_every_type, strict_mode_limits_what_is_asked, rates_are_limited,
    sizes_are_limited, the_cluster_shows_itself, mistakes_are_explained, older_paths_answer_like_the_query,
]
