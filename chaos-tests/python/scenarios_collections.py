"""Collections through the client: how they live, aliases, payload indexes, older paths, and what is refused."""

import httpx
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from sample import DIM, filled, fresh, must, points, value, vector
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


def operations_that_the_client_has_no_method_for(client):
    filled(client, NAME, range(5))
    url = address_of(client)

    def get(path, status=200):
        answer = httpx.get(url + path, timeout=30)
        assert answer.status_code == status, f"{path}: {answer.status_code} {answer.text}"
        return answer

    point = get(f"/collections/{NAME}/points/3").json()["result"]
    record, = client.retrieve(NAME, [3], with_vectors=True)
    assert (point["id"], point["payload"], point["vector"]) == (3, record.payload, record.vector), point
    get(f"/collections/{NAME}/points/99", status=404)
    get(f"/collections/{NAME}/points/no-id", status=400)
    assert get("/").json().keys() >= {"title", "version"}
    for path in ("/healthz", "/livez", "/readyz"):
        assert get(path).text
    assert "# TYPE" in get("/metrics").text
    telemetry = get("/telemetry?details_level=3").json()["result"]
    assert telemetry.keys() >= {"id", "app", "collections", "cluster", "requests"}, telemetry.keys()


ALONE = [
    operations_that_the_client_has_no_method_for,
    collections_live_and_die, a_name_may_have_any_character, aliases_are_switched_at_once, payload_indexes_of_every_type,
    the_cluster_shows_itself, mistakes_are_explained, older_paths_answer_like_the_query,
]
