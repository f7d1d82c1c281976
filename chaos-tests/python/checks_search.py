"""Search against brute force: recall exact and through the index, every metric, every filter."""

import time

import numpy as np
from qdrant_client import models

from checks_api import fresh, upload

NAME = "recall"
ROWS, DIM, QUERIES, K = 10_000, 64, 200, 10
INDEX_SECONDS = 120

DISTANCES = {
    models.Distance.EUCLID: lambda base, query: np.linalg.norm(base - query, axis=1),
    models.Distance.MANHATTAN: lambda base, query: np.abs(base - query).sum(axis=1),
    models.Distance.DOT: lambda base, query: -(base @ query),
    models.Distance.COSINE: lambda base, query: -(base @ query) / np.linalg.norm(base, axis=1) / np.linalg.norm(query),
}


def clustered(rows, seed):
    """Points around 100 centres: closer to real embeddings than noise, and harder to get right than noise alone."""
    centres = np.random.default_rng(0).normal(size=(100, DIM)) * 2
    rng = np.random.default_rng(seed)
    return (centres[rng.integers(0, 100, rows)] + rng.normal(size=(rows, DIM))).astype(np.float32)


BASE, QUERY = clustered(ROWS, 1), clustered(QUERIES, 2)


def payload(row):
    made = {"row": row, "group": f"g{row % 7}", "price": (row * 37 % 1_000) / 10, "flag": row % 3 == 0,
            "tags": [f"t{row % 5}", f"t{row % 11}"], "nested": {"level": row % 4}}
    if row % 10 == 0:
        made["rare"] = None if row % 20 == 0 else "here"
    return made


def wait_until_green(client, name):
    until = time.monotonic() + INDEX_SECONDS
    while True:
        info = client.get_collection(name)
        if info.status == models.CollectionStatus.GREEN and info.indexed_vectors_count >= ROWS:
            return info
        assert time.monotonic() < until, info
        time.sleep(0.1)


def collection_of(client, distance, rows=ROWS):
    vectors = models.VectorParams(size=DIM, distance=distance)
    # A threshold of 100 KiB: each shard's 640 KiB get a graph.
    fresh(client, NAME, vectors_config=vectors, shard_number=4,
          optimizers_config=models.OptimizersConfigDiff(indexing_threshold=100))
    upload(client, NAME, BASE[:rows], payload)


def nearest(distance, query, allowed=None, k=K):
    far = DISTANCES[distance](BASE.astype(np.float64), query.astype(np.float64))
    if allowed is not None:
        far = np.where(allowed, far, np.inf)
    order = np.argsort(far, kind="stable")[:k]
    return [int(row) for row in order if np.isfinite(far[row])], far


def shown_score(distance, far):
    return far if distance in (models.Distance.EUCLID, models.Distance.MANHATTAN) else -far


def recall(distance, answers):
    found = sum(len({hit.id for hit in hits} & set(nearest(distance, query)[0])) for query, hits in zip(QUERY, answers))
    return found / (len(answers) * K)


def check_metric(client, distance):
    collection_of(client, distance)
    exact_params = models.SearchParams(exact=True)
    exact = [client.query_points(NAME, query=query.tolist(), limit=K, search_params=exact_params).points for query in QUERY]
    for query, hits in zip(QUERY, exact):
        rows, far = nearest(distance, query)
        scores = [hit.score for hit in hits]
        expected = [shown_score(distance, far[row]) for row in rows]
        assert np.allclose(scores, expected, rtol=1e-4, atol=1e-4), (scores, expected)
        order = sorted(scores, reverse=distance in (models.Distance.DOT, models.Distance.COSINE))
        assert scores == order, "hits are not in the order of their scores"
    exact_recall = recall(distance, exact)
    assert exact_recall == 1.0, exact_recall

    info = wait_until_green(client, NAME)
    requests = [models.QueryRequest(query=query.tolist(), limit=K) for query in QUERY]
    batch = [answer.points for answer in client.query_batch_points(NAME, requests)]
    assert len(batch) == QUERIES
    hnsw_recall = recall(distance, batch)
    assert hnsw_recall >= 0.97, hnsw_recall
    single = client.query_points(NAME, query=QUERY[0].tolist(), limit=K, search_params=models.SearchParams(hnsw_ef=256))
    assert len({hit.id for hit in single.points} & set(nearest(distance, QUERY[0])[0])) >= 8
    return f"exact {exact_recall:.4f}, HNSW {hnsw_recall:.4f}, {info.segments_count} segments"


def recall_euclid(client):
    return check_metric(client, models.Distance.EUCLID)


def recall_cosine(client):
    return check_metric(client, models.Distance.COSINE)


def recall_dot(client):
    return check_metric(client, models.Distance.DOT)


def recall_manhattan(client):
    return check_metric(client, models.Distance.MANHATTAN)


def cosine_vectors_come_back_normalised(client):
    collection_of(client, models.Distance.COSINE, rows=50)
    for point in client.retrieve(NAME, list(range(50)), with_vectors=True):
        expected = BASE[point.id] / np.linalg.norm(BASE[point.id])
        assert np.allclose(point.vector, expected, atol=1e-6)


def limit_offset_and_threshold(client):
    collection_of(client, models.Distance.EUCLID, rows=2_000)
    params = models.SearchParams(exact=True)

    def ask(**more):
        return client.query_points(NAME, query=QUERY[0].tolist(), search_params=params, **more).points

    first = ask(limit=50)
    assert len(first) == 50
    assert [hit.id for hit in ask(limit=20, offset=30)] == [hit.id for hit in first[30:]]
    assert ask(limit=5, offset=10_000) == []
    assert len(ask(limit=5_000)) == 2_000
    edge = (first[9].score + first[10].score) / 2
    assert [hit.id for hit in ask(limit=50, score_threshold=edge)] == [hit.id for hit in first[:10]]
    by_id = client.query_points(NAME, query=first[0].id, limit=5, search_params=params).points
    assert first[0].id not in [hit.id for hit in by_id]
    assert [hit.id for hit in by_id] == [
        row for row in np.argsort(np.linalg.norm(BASE[:2_000] - BASE[first[0].id], axis=1))[:6] if row != first[0].id][:5]


def filters_agree_with_numpy(client):
    collection_of(client, models.Distance.EUCLID)
    wait_until_green(client, NAME)
    rows = [payload(row) for row in range(ROWS)]

    def field(key, **condition):
        return models.FieldCondition(key=key, **condition)

    value, among, without = models.MatchValue, models.MatchAny, models.MatchExcept
    cases = [
        ("match a keyword", models.Filter(must=[field("group", match=value(value="g3"))]), lambda p: p["group"] == "g3"),
        ("match an integer", models.Filter(must=[field("row", match=value(value=77))]), lambda p: p["row"] == 77),
        ("match a bool", models.Filter(must=[field("flag", match=value(value=True))]), lambda p: p["flag"]),
        ("match in an array", models.Filter(must=[field("tags", match=value(value="t4"))]), lambda p: "t4" in p["tags"]),
        ("nested key", models.Filter(must=[field("nested.level", match=value(value=2))]), lambda p: p["nested"]["level"] == 2),
        ("any", models.Filter(must=[field("group", match=among(any=["g1", "g2"]))]), lambda p: p["group"] in ("g1", "g2")),
        ("except", models.Filter(must=[field("group", match=without(**{"except": ["g1", "g2"]}))]),
         lambda p: p["group"] not in ("g1", "g2")),
        ("range", models.Filter(must=[field("price", range=models.Range(gte=10.0, lt=25.5))]), lambda p: 10 <= p["price"] < 25.5),
        ("open range", models.Filter(must=[field("price", range=models.Range(gt=99.0))]), lambda p: p["price"] > 99),
        ("must not", models.Filter(must_not=[field("flag", match=value(value=True))]), lambda p: not p["flag"]),
        ("should", models.Filter(should=[field("group", match=value(value="g0")), field("price", range=models.Range(lt=1.0))]),
         lambda p: p["group"] == "g0" or p["price"] < 1),
        ("all three", models.Filter(
            must=[field("flag", match=value(value=True))], should=[field("group", match=value(value="g5")), field("group", match=value(value="g6"))],
            must_not=[field("price", range=models.Range(lt=50.0))]),
         lambda p: p["flag"] and p["group"] in ("g5", "g6") and p["price"] >= 50),
        ("nested filter", models.Filter(must=[models.Filter(should=[field("row", range=models.Range(lt=5.0)), field("row", match=value(value=9))])]),
         lambda p: p["row"] < 5 or p["row"] == 9),
        ("has id", models.Filter(must=[models.HasIdCondition(has_id=[1, 5, 9_999, 123_456])]), lambda p: p["row"] in (1, 5, 9_999)),
        ("is empty", models.Filter(must=[models.IsEmptyCondition(is_empty=models.PayloadField(key="rare"))]),
         lambda p: p.get("rare") is None),
        ("is null", models.Filter(must=[models.IsNullCondition(is_null=models.PayloadField(key="rare"))]),
         lambda p: "rare" in p and p["rare"] is None),
        ("a key nobody has", models.Filter(must=[field("absent", match=value(value=1))]), lambda p: False),
    ]
    for name, condition, rule in cases:
        allowed = np.array([rule(p) for p in rows])
        count = client.count(NAME, count_filter=condition, exact=True).count
        assert count == allowed.sum(), (name, count, int(allowed.sum()))
        points, _ = client.scroll(NAME, scroll_filter=condition, limit=ROWS, with_payload=False)
        assert [point.id for point in points] == np.flatnonzero(allowed).tolist(), name
        found = wanted = 0
        for query in QUERY[:20]:
            best, _ = nearest(models.Distance.EUCLID, query, allowed)
            exact = client.query_points(NAME, query=query.tolist(), query_filter=condition, limit=K,
                                        search_params=models.SearchParams(exact=True)).points
            assert [hit.id for hit in exact] == best, (name, [hit.id for hit in exact], best)
            hits = client.query_points(NAME, query=query.tolist(), query_filter=condition, limit=K).points
            assert all(allowed[hit.id] for hit in hits), (name, "a hit that the filter excludes")
            found += len({hit.id for hit in hits} & set(best))
            wanted += len(best)
        assert wanted == 0 or found / wanted >= 0.97, (name, found, wanted)
    return f"{len(cases)} filters"


def deleted_points_are_no_hits_of_the_index(client):
    collection_of(client, models.Distance.EUCLID)
    wait_until_green(client, NAME)
    best = [nearest(models.Distance.EUCLID, query, k=3)[0] for query in QUERY[:50]]
    gone = sorted({row for rows in best for row in rows})
    client.delete(NAME, gone, wait=True)
    for query in QUERY[:50]:
        hits = client.query_points(NAME, query=query.tolist(), limit=K).points
        assert len(hits) == K and not {hit.id for hit in hits} & set(gone)
    assert client.count(NAME).count == ROWS - len(gone)


CHECKS = [recall_euclid, recall_cosine, recall_dot, recall_manhattan, cosine_vectors_come_back_normalised,
          limit_offset_and_threshold, filters_agree_with_numpy, deleted_points_are_no_hits_of_the_index]
