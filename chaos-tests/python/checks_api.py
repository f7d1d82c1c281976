"""The life of collections and points through the client's everyday calls."""

import uuid

import numpy as np
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

NAME = "life"
DIM = 32


def vectors_of(n, seed=1):
    return np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)


def fresh(client, name=NAME, **create):
    client.delete_collection(name)
    settings = {"vectors_config": models.VectorParams(size=DIM, distance=models.Distance.EUCLID)} | create
    assert client.create_collection(name, **settings)


def upload(client, name, vectors, payload=lambda row: {"row": row}, batch=500):
    for start in range(0, len(vectors), batch):
        rows = range(start, min(start + batch, len(vectors)))
        points = [models.PointStruct(id=row, vector=vectors[row].tolist(), payload=payload(row)) for row in rows]
        done = client.upsert(name, points, wait=True)
        assert done.status == models.UpdateStatus.COMPLETED, done


def refused(status, call):
    try:
        call()
    except UnexpectedResponse as error:
        assert error.status_code == status, error
        return error.content.decode()
    raise AssertionError(f"expected status {status}")


def collection_life(client):
    fresh(client)
    assert client.collection_exists(NAME)
    assert NAME in [collection.name for collection in client.get_collections().collections]
    info = client.get_collection(NAME)
    assert info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.YELLOW), info
    assert info.points_count == 0
    assert info.config.params.vectors.size == DIM
    assert info.config.params.vectors.distance == models.Distance.EUCLID
    refused(409, lambda: client.create_collection(
        NAME, vectors_config=models.VectorParams(size=DIM, distance=models.Distance.DOT)))
    assert client.delete_collection(NAME)
    assert not client.collection_exists(NAME)
    assert "doesn't exist" in refused(404, lambda: client.get_collection(NAME))


def upsert_list_batch_and_columns(client):
    fresh(client)
    vectors = vectors_of(1_200)
    upload(client, NAME, vectors[:1_000])
    client.upsert(NAME, models.Batch(
        ids=list(range(1_000, 1_100)), vectors=vectors[1_000:1_100].tolist(),
        payloads=[{"row": row} for row in range(1_000, 1_100)]), wait=True)
    client.upload_collection(NAME, vectors[1_100:], payload=[{"row": row} for row in range(1_100, 1_200)],
                             ids=list(range(1_100, 1_200)), wait=True)
    assert client.count(NAME, exact=True).count == 1_200
    got = client.retrieve(NAME, [3, 1_050, 1_150], with_payload=True, with_vectors=True)
    assert sorted(point.id for point in got) == [3, 1_050, 1_150]
    for point in got:
        assert point.payload == {"row": point.id}
        assert np.array_equal(np.array(point.vector, dtype=np.float32), vectors[point.id]), "not the bits that went in"


def upsert_replaces_the_whole_point(client):
    fresh(client)
    old, new = vectors_of(2)
    client.upsert(NAME, [models.PointStruct(id=1, vector=old.tolist(), payload={"a": 1, "b": 2})], wait=True)
    client.upsert(NAME, [models.PointStruct(id=1, vector=new.tolist(), payload={"a": 3})], wait=True)
    point, = client.retrieve(NAME, [1], with_vectors=True)
    assert point.payload == {"a": 3}
    assert np.array_equal(np.array(point.vector, dtype=np.float32), new)
    assert client.count(NAME).count == 1


def uuid_ids(client):
    fresh(client)
    vectors = vectors_of(300)
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(row))) for row in range(300)]
    points = [models.PointStruct(id=ids[row], vector=vectors[row].tolist(), payload={"row": row}) for row in range(300)]
    client.upsert(NAME, points, wait=True)
    client.upsert(NAME, [models.PointStruct(id=7, vector=vectors[7].tolist())], wait=True)
    point, = client.retrieve(NAME, [ids[42]])
    assert (point.id, point.payload) == (ids[42], {"row": 42})
    found = client.query_points(NAME, query=vectors[42].tolist(), limit=1).points
    assert found[0].id == ids[42]
    by_id = client.query_points(NAME, query=ids[42], limit=3).points
    assert ids[42] not in [hit.id for hit in by_id]
    points, _ = client.scroll(NAME, limit=1_000)
    assert [point.id for point in points] == [7] + sorted(ids), "numbers first, then UUIDs in order"
    filtered = client.query_points(NAME, query=vectors[1].tolist(), limit=5, query_filter=models.Filter(
        must=[models.HasIdCondition(has_id=[ids[1], ids[2], 7])])).points
    assert {hit.id for hit in filtered} == {ids[1], ids[2], 7} and filtered[0].id == ids[1]


def scroll_all_pages(client):
    fresh(client)
    upload(client, NAME, vectors_of(1_234))
    seen, offset, pages = [], None, 0
    while True:
        points, offset = client.scroll(NAME, limit=100, offset=offset, with_payload=True)
        seen += [point.id for point in points]
        assert all(point.payload["row"] == point.id and point.vector is None for point in points)
        pages += 1
        if offset is None:
            break
    assert seen == list(range(1_234)) and pages == 13, (len(seen), pages)


def payload_and_vector_selection(client):
    fresh(client)
    payload = {"a": {"b": 1, "c": [1, 2]}, "text": "käse ☃", "none": None, "x": 1.5}
    client.upsert(NAME, [models.PointStruct(id=1, vector=vectors_of(1)[0].tolist(), payload=payload)], wait=True)

    def payload_with(selector):
        return client.retrieve(NAME, [1], with_payload=selector)[0].payload

    assert payload_with(True) == payload
    assert not payload_with(False)
    assert payload_with(["text", "a.b"]) == {"text": "käse ☃", "a": {"b": 1}}
    assert payload_with(models.PayloadSelectorExclude(exclude=["a", "none"])) == {"text": "käse ☃", "x": 1.5}
    hit, = client.query_points(NAME, query=1.0 * vectors_of(1)[0], limit=1, with_payload=False).points
    assert not hit.payload and hit.vector is None


def delete_by_id_and_by_filter(client):
    fresh(client)
    vectors = vectors_of(500)
    upload(client, NAME, vectors, payload=lambda row: {"row": row, "odd": row % 2 == 1})
    client.delete(NAME, [1, 2, 3, 999_999], wait=True)
    assert client.count(NAME).count == 497
    client.delete(NAME, models.FilterSelector(filter=models.Filter(
        must=[models.FieldCondition(key="odd", match=models.MatchValue(value=True))])), wait=True)
    assert client.count(NAME).count == 249
    assert client.retrieve(NAME, [1, 2, 5]) == []
    hits = client.query_points(NAME, query=vectors[5].tolist(), limit=300, search_params=models.SearchParams(exact=True))
    assert len(hits.points) == 249 and all(hit.id % 2 == 0 for hit in hits.points)
    upload(client, NAME, vectors[:10])
    assert client.count(NAME).count == 249 + 6, "what was deleted can come again"


def recreate(client):
    fresh(client)
    upload(client, NAME, vectors_of(100))
    client.delete_collection(NAME)
    client.create_collection(NAME, vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    assert client.count(NAME).count == 0, "points of the deleted collection are back"
    assert client.get_collection(NAME).config.params.vectors.size == 4
    client.upsert(NAME, [models.PointStruct(id=1, vector=[1, 2, 3, 4])], wait=True)
    assert client.query_points(NAME, query=[1, 0, 0, 0]).points[0].score == 1.0


def named_vectors(client):
    fresh(client, vectors_config={
        "image": models.VectorParams(size=8, distance=models.Distance.DOT),
        "text": models.VectorParams(size=DIM, distance=models.Distance.COSINE)})
    rng = np.random.default_rng(3)
    images, texts = rng.normal(size=(400, 8)).astype(np.float32), vectors_of(400)
    points = [models.PointStruct(id=row, vector={"image": images[row].tolist(), "text": texts[row].tolist()})
              for row in range(400)]
    points.append(models.PointStruct(id=1_000, vector={"image": [100.0] * 8}))
    client.upsert(NAME, points, wait=True)
    best = client.query_points(NAME, query=[1.0] * 8, using="image", limit=3).points
    assert best[0].id == 1_000
    expected = np.argsort(-(texts @ texts[9]) / np.linalg.norm(texts, axis=1))[:5]
    found = client.query_points(NAME, query=texts[9].tolist(), using="text", limit=401).points
    assert [hit.id for hit in found[:5]] == expected.tolist()
    assert len(found) == 400, "a point without this vector is no hit"
    point, = client.retrieve(NAME, [1_000], with_vectors=True)
    assert set(point.vector) == {"image"}
    point, = client.retrieve(NAME, [5], with_vectors=["image"])
    assert set(point.vector) == {"image"}
    refused(400, lambda: client.query_points(NAME, query=[1.0] * 8, using="sound"))
    refused(400, lambda: client.query_points(NAME, query=[1.0] * 8, using="text"))


def aliases(client):
    fresh(client, "life-one")
    fresh(client, "life-two")
    client.upsert("life-one", [models.PointStruct(id=1, vector=vectors_of(1)[0].tolist())], wait=True)
    create = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="life-one", alias_name="now"))
    assert client.update_collection_aliases([create])
    assert client.count("now").count == 1
    swap = [models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="now")),
            models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name="life-two", alias_name="now"))]
    assert client.update_collection_aliases(swap)
    assert client.count("now").count == 0
    assert [alias.alias_name for alias in client.get_collection_aliases("life-two").aliases] == ["now"]
    assert ("now", "life-two") in [(a.alias_name, a.collection_name) for a in client.get_aliases().aliases]
    client.delete_collection("life-two")
    client.delete_collection("life-one")
    refused(404, lambda: client.count("now"))


def the_cluster_shows_itself(client):
    fresh(client, replication_factor=3, shard_number=2)
    upload(client, NAME, vectors_of(100))
    cluster = client.cluster_status()
    assert cluster.status == "enabled" and cluster.raft_info.role == models.StateRole.LEADER, cluster
    placed = client.collection_cluster_info(NAME)
    assert placed.shard_count == 2 and not placed.local_shards and len(placed.remote_shards) == 6, placed
    for shard in placed.remote_shards:
        assert shard.state == models.ReplicaState.ACTIVE and str(shard.peer_id) in cluster.peers, shard
    for level in range(4):
        for anonymize in (False, True):
            telemetry = client.http.service_api.telemetry(details_level=level, anonymize=anonymize).result
            assert telemetry.app.name == "vicinal" and telemetry.collections.number_of_collections >= 1, telemetry
            assert (telemetry.collections.collections is not None) == (level > 0), telemetry


CHECKS = [collection_life, upsert_list_batch_and_columns, upsert_replaces_the_whole_point, uuid_ids, scroll_all_pages,
          payload_and_vector_selection, delete_by_id_and_by_filter, recreate, named_vectors, aliases,
          the_cluster_shows_itself]
