"""Vectors of all kinds through the client: named, sparse, multivectors, other datatypes. Compared with local mode and numpy."""

import numpy as np
from qdrant_client import models

import sample
from sample import DIM, PLACED, ROWS, everything, field, filled, must, point_id, points, value, vector

NAME = "vectors"
ALL = ROWS + 1
DOT, COSINE = models.Distance.DOT, models.Distance.COSINE


def ask(client, note, name, **query):
    note.hits(name, lambda: client.query_points(NAME, **({"with_payload": False} | query)).points)


def a_vector_of_no_name(client, note):
    """LangChain names its only vector ""."""
    filled(client, NAME, range(20), lambda row: {"": vector(row)},
           vectors_config={"": models.VectorParams(size=DIM, distance=COSINE)})
    everything(client, note, NAME)
    ask(client, note, "using no name", query=vector("q"), using="", with_vectors=True)
    ask(client, note, "using nothing", query=vector("q"))
    ask(client, note, "of a point", query=3, using="", limit=30)


def some_points_lack_some_vectors(client, note):
    named = {"a": models.VectorParams(size=DIM, distance=COSINE), "b": models.VectorParams(size=2, distance=DOT)}
    filled(client, NAME, range(30), lambda row: {name: vector(row, size) for name, size in (("a", DIM), ("b", 2))
                                                 if row % 3 or name == "a"}, vectors_config=named)
    client.upsert(NAME, [models.PointStruct(id=100, vector={}, payload={"row": 100})])
    everything(client, note, NAME)
    ask(client, note, "b", query=[1.0, 0.5], using="b", limit=50, with_vectors=["a"])
    for name in named:
        found, _ = client.scroll(NAME, scroll_filter=must(models.HasVectorCondition(has_vector=name)), limit=50)
        note(f"who has {name}", [point.id for point in found])
    note.refused("a query of a point without it", lambda: client.query_points(NAME, query=100, using="a"))
    note.refused("an unknown vector", lambda: client.query_points(NAME, query=[1.0], using="c"))


def sparse_collection(client, **params):
    filled(client, NAME, make=lambda row: {"d": vector(row)} | ({"s": sample.sparse(row)} if row % 10 else {}),
           vectors_config={"d": models.VectorParams(size=DIM, distance=COSINE)},
           sparse_vectors_config={"s": models.SparseVectorParams(**params)})


def sparse_vectors_are_kept_and_changed(client, note):
    sparse_collection(client, index=models.SparseIndexParams(on_disk=False))
    everything(client, note, NAME)
    unordered = models.SparseVector(indices=[9, 3, 70_000], values=[1.5, -2, 0.25])
    client.upsert(NAME, [models.PointStruct(id=200, vector={"s": unordered})])
    note("in any order", client.retrieve(NAME, [200], with_vectors=True))
    client.update_vectors(NAME, [models.PointVectors(id=1, vector={"s": sample.sparse("new")})])
    client.delete_vectors(NAME, ["s"], points=[2, 3])
    note.set("after changes", client.retrieve(NAME, [1, 2, 3, 200], with_vectors=["s"]))
    found, _ = client.scroll(NAME, scroll_filter=must(models.HasVectorCondition(has_vector="s")), limit=100)
    note("who has it", [point.id for point in found])
    for wrong in (models.SparseVector(indices=[1, 1], values=[1, 2]), models.SparseVector(indices=[1], values=[1, 2])):
        note.refused(f"{wrong}", lambda: client.upsert(NAME, [models.PointStruct(id=300, vector={"s": wrong})]))


def sparse_vectors_are_searched(client, note):
    for modifier in (None, models.Modifier.IDF):
        sparse_collection(client, modifier=modifier)
        # One that all points are scored by; numbers of documents are of the whole collection, whatever the shards.
        for name in ("q1", "q2", "q3"):
            query = sample.sparse(name)
            ask(client, note, f"{modifier} {name}", query=query, using="s", limit=ALL)
            ask(client, note, f"{modifier} {name} page", query=query, using="s", limit=5, offset=2, score_threshold=0.5,
                with_payload=["row"], with_vectors=["s"])
            ask(client, note, f"{modifier} {name} filtered", query=query, using="s", limit=ALL,
                query_filter=must(value("even", True)))
        ask(client, note, f"{modifier} of a point", query=3, using="s", limit=ALL)
    client.delete(NAME, [1, 2, 3])
    client.upsert(NAME, points(range(70, 80), lambda row: {"s": sample.sparse(row)}))
    ask(client, note, "after changes", query=sample.sparse("q1"), using="s", limit=ALL)


def sparse_vectors_take_part_in_every_query(client, note):
    sparse_collection(client)
    a, b = sample.sparse("a"), sample.sparse("b")
    for strategy in models.RecommendStrategy:
        ask(client, note, f"{strategy}", using="s", limit=ALL, query=models.RecommendQuery(
            recommend=models.RecommendInput(positive=[a, 3], negative=[b], strategy=strategy)))
    context = [models.ContextPair(positive=a, negative=b)]
    ask(client, note, "discover", using="s", limit=ALL, query=models.DiscoverQuery(
        discover=models.DiscoverInput(target=sample.sparse("t"), context=context)))
    ask(client, note, "context", using="s", limit=ALL, query=models.ContextQuery(context=context))
    found = client.query_points_groups(NAME, query=a, using="s", group_by="colour", group_size=2)
    note("groups", found.groups)


def dense_and_sparse_queries_are_fused(client, note):
    for modifier in (None, models.Modifier.IDF):
        sparse_collection(client, modifier=modifier)
        both = [models.Prefetch(query=vector("q"), using="d", limit=20),
                models.Prefetch(query=sample.sparse("q1"), using="s", limit=20)]
        for query in (models.FusionQuery(fusion=models.Fusion.RRF), models.FusionQuery(fusion=models.Fusion.DBSF),
                      models.RrfQuery(rrf=models.Rrf(k=10, weights=[1.0, 3.0]))):
            ask(client, note, f"{modifier} {query}", prefetch=both, query=query, limit=ALL)
        ask(client, note, f"{modifier} rescored", prefetch=both, query=sample.sparse("q2"), using="s", limit=ALL)


def multi_collection(client, distance):
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    filled(client, NAME, make=lambda row: {"d": vector(row)} | ({"m": sample.multi(row)} if row % 10 else {}),
           vectors_config={"m": models.VectorParams(size=4, distance=distance, multivector_config=several),
                           "d": models.VectorParams(size=DIM, distance=COSINE)})


def multivectors_are_searched(client, note):
    for distance in models.Distance:
        multi_collection(client, distance)
        query = sample.multi("q")
        ask(client, note, f"{distance} matrix", query=query, using="m", limit=ALL)
        ask(client, note, f"{distance} one row", query=query[:1], using="m", limit=9, query_filter=must(value("even", True)))
        ask(client, note, f"{distance} of a point", query=3, using="m", limit=9)
        ask(client, note, f"{distance} rescored", prefetch=models.Prefetch(query=vector("q"), using="d", limit=20),
            query=query, using="m", limit=ALL)
        for strategy in models.RecommendStrategy:
            ask(client, note, f"{distance} {strategy}", using="m", limit=ALL, query=models.RecommendQuery(
                recommend=models.RecommendInput(positive=[query, 5], negative=[sample.multi("n")], strategy=strategy)))


def multivectors_are_kept_and_changed(client, note):
    multi_collection(client, DOT)
    everything(client, note, NAME)
    client.update_vectors(NAME, [models.PointVectors(id=1, vector={"m": sample.multi("new")})])
    client.delete_vectors(NAME, ["m"], points=[2])
    note.set("after changes", client.retrieve(NAME, [1, 2, 3, point_id(7)], with_vectors=["m"]))
    note.refused("rows of two lengths", lambda: client.upsert(NAME, [
        models.PointStruct(id=300, vector={"m": [[1.0] * 4, [1.0] * 3]})]))


def narrow(client, datatype, make):
    params = models.VectorParams(size=DIM, distance=DOT, datatype=datatype)
    vectors = {row: make(row) for row in range(40)}
    client.delete_collection(NAME)
    client.create_collection(NAME, vectors_config=params, **PLACED)
    client.upsert(NAME, [models.PointStruct(id=row, vector=vectors[row], payload={"row": row}) for row in vectors])
    return vectors


def check_scores(client, kept, query):
    found = client.query_points(NAME, query=query, limit=10, search_params=models.SearchParams(exact=True)).points
    scores = {row: float(np.dot(vector, query)) for row, vector in kept.items()}
    best = sorted(scores, key=lambda row: -scores[row])[:10]
    assert np.allclose([hit.score for hit in found], [scores[row] for row in best], rtol=1e-3), (found, best)
    assert client.get_collection(NAME).config.params.vectors.datatype is not None
    assert len(client.query_points(NAME, query=3, limit=5, query_filter=must(field("row", range=models.Range(lt=9)))).points) == 5


def half_precision_vectors(client):
    vectors = narrow(client, models.Datatype.FLOAT16, vector)
    kept = {row: np.array(vector, dtype=np.float16).astype(np.float32) for row, vector in vectors.items()}
    for point in client.retrieve(NAME, list(vectors), with_vectors=True):
        assert np.allclose(point.vector, kept[point.id], atol=1e-6), (point.vector, kept[point.id])
    check_scores(client, kept, vector("q"))


def byte_vectors(client):
    vectors = narrow(client, models.Datatype.UINT8, lambda row: [float(abs(int(x * 255))) for x in vector(row)])
    for point in client.retrieve(NAME, list(vectors), with_vectors=True):
        assert point.vector == vectors[point.id], point
    check_scores(client, vectors, [float(x) for x in (3, 200, 9, 0, 77, 255)])


TWINS = [
    a_vector_of_no_name, some_points_lack_some_vectors, sparse_vectors_are_kept_and_changed, sparse_vectors_are_searched,
    sparse_vectors_take_part_in_every_query, dense_and_sparse_queries_are_fused, multivectors_are_searched,
    multivectors_are_kept_and_changed,
]
ALONE = [half_precision_vectors, byte_vectors]
