"""Every kind of query through the client. All answers are compared with local mode."""

from qdrant_client import models

from sample import DIM, ROWS, field, filled, fresh, must, point_id, points, value, vector

NAME, OTHER = "queries", "queries-other"
METRICS = list(models.Distance)
ALL = ROWS + 1


def ask(client, note, name, **query):
    note.hits(name, lambda: client.query_points(NAME, **({"with_payload": False} | query)).points)


def with_each_metric(client):
    """The metric's name, each with a filled collection."""
    for metric in METRICS:
        filled(client, NAME, vectors_config=models.VectorParams(size=DIM, distance=metric))
        yield metric.value


def nearest_of_a_vector_and_of_a_point(client, note):
    for metric in with_each_metric(client):
        ask(client, note, f"{metric} of a vector", query=vector("q"), limit=ALL)
        ask(client, note, f"{metric} of a point", query=3, limit=20)
        ask(client, note, f"{metric} of a UUID", query=point_id(14), limit=20)
        ask(client, note, f"{metric} in words", query=models.NearestQuery(nearest=vector("q")), limit=5)
    note.refused("a point that is not there", lambda: client.query_points(NAME, query=9_999))


def pages_thresholds_and_selections(client, note):
    filled(client, NAME)
    ask(client, note, "offset", query=vector("q"), limit=7, offset=11)
    ask(client, note, "offset beyond the end", query=vector("q"), limit=7, offset=1_000)
    ask(client, note, "threshold", query=vector("q"), limit=ALL, score_threshold=0.2)
    ask(client, note, "payload and vector", query=vector("q"), limit=5, with_payload=["colour"], with_vectors=True)
    ask(client, note, "all payload", query=vector("q"), limit=5, with_payload=True)
    ask(client, note, "filter", query=vector("q"), limit=ALL, query_filter=must(value("colour", "blue")))
    ask(client, note, "exact", query=vector("q"), limit=9, search_params=models.SearchParams(exact=True))
    ask(client, note, "ef", query=vector("q"), limit=9, search_params=models.SearchParams(hnsw_ef=200))
    note("no query", client.query_points(NAME, limit=12, offset=3, with_payload=["row"]))


def recommend(strategy, positive, negative=None):
    return models.RecommendQuery(recommend=models.RecommendInput(positive=positive, negative=negative, strategy=strategy))


def recommendations_follow_their_strategy(client, note):
    for metric in with_each_metric(client):
        for strategy in (None, *models.RecommendStrategy):
            ask(client, note, f"{metric} {strategy} of ids", query=recommend(strategy, [1, point_id(7)], [3]), limit=ALL)
            ask(client, note, f"{metric} {strategy} of vectors",
                query=recommend(strategy, [vector("a"), 2], [vector("b"), vector("c")]), limit=20)
            ask(client, note, f"{metric} {strategy} with a filter and an offset", query=recommend(strategy, [4]),
                query_filter=must(value("even", True)), offset=2, limit=10)
    for strategy in (models.RecommendStrategy.BEST_SCORE, models.RecommendStrategy.SUM_SCORES):
        ask(client, note, f"{strategy} of negatives", query=recommend(strategy, [], [1, 2]), limit=20)
    note.refused("no example", lambda: client.query_points(NAME, query=recommend(None, [], [])))


def pair(positive, negative):
    return models.ContextPair(positive=positive, negative=negative)


def discoveries_prefer_what_the_context_prefers(client, note):
    for metric in with_each_metric(client):
        context = [pair(vector("a"), vector("b")), pair(3, point_id(14))]
        for count in (0, 1, 2):
            ask(client, note, f"{metric} discover with {count} pairs", limit=ALL, query=models.DiscoverQuery(
                discover=models.DiscoverInput(target=vector("t"), context=context[:count])))
        ask(client, note, f"{metric} discover of a point", limit=20, query=models.DiscoverQuery(
            discover=models.DiscoverInput(target=5, context=context)), query_filter=must(value("even", False)))


def contexts_are_searched(client, note):
    for metric in with_each_metric(client):
        for name, context in (("one pair", [pair(vector("a"), vector("b"))]),
                              ("two pairs", [pair(1, 2), pair(vector("c"), point_id(7))])):
            ask(client, note, f"{metric} {name}", query=models.ContextQuery(context=context), limit=ALL)


def points_are_ordered_by_a_field(client, note):
    filled(client, NAME)
    client.create_payload_index(NAME, "price", field_schema="float", wait=True)
    for order in ("price", models.OrderBy(key="price", direction="desc", start_from=70)):
        found = client.query_points(NAME, query=models.OrderByQuery(order_by=order), limit=9, with_payload=["price"]).points
        note(f"by {order}", [(hit.id, hit.payload) for hit in found])
        note(f"values by {order}", [hit.order_value for hit in found])
    found = client.query_points(NAME, query=models.OrderByQuery(order_by="price"), limit=5, offset=4).points
    note("with an offset", [hit.id for hit in found])


def samples_are_some_of_the_points(client, note):
    filled(client, NAME)
    query = models.SampleQuery(sample=models.Sample.RANDOM)
    note.set("all", client.query_points(NAME, query=query, limit=ALL).points)
    note.set("all that match", client.query_points(NAME, query=query, limit=ALL, query_filter=must(value("even", True))).points)
    some = client.query_points(NAME, query=query, limit=8).points
    note("how many", [len(some), len({hit.id for hit in some})])


def prefetch(name, limit=15, **more):
    return models.Prefetch(query=vector(name), limit=limit, **more)


def lists_are_fused(client, note):
    filled(client, NAME)
    both = [prefetch("a"), prefetch("b", filter=must(value("even", True))), prefetch("c", 5, score_threshold=0.3)]
    queries = [models.FusionQuery(fusion=kind) for kind in models.Fusion]
    queries += [models.RrfQuery(rrf=models.Rrf(k=k, weights=weights))
                for k, weights in ((1, None), (60, None), (None, [1.0, 2.5, 0.5]), (7, [0.0, 1.0, 3.0]))]
    for query in queries:
        ask(client, note, f"{query}", prefetch=both, query=query, limit=ALL)
        ask(client, note, f"{query} page", prefetch=both, query=query, limit=5, offset=2, with_payload=True)
        ask(client, note, f"{query} filtered", prefetch=both, query=query, query_filter=must(value("colour", "red")))
        ask(client, note, f"{query} threshold", prefetch=both, query=query, score_threshold=0.4, limit=ALL)
    note.refused("no prefetch", lambda: client.query_points(NAME, query=models.FusionQuery(fusion=models.Fusion.RRF)))


def prefetches_are_nested(client, note):
    filled(client, NAME)
    inner = prefetch("a", 20, prefetch=[prefetch("b", 30), prefetch("c", 10)])
    ask(client, note, "two levels", prefetch=inner, query=vector("q"), limit=ALL)
    fused = models.Prefetch(prefetch=[prefetch("a"), prefetch("b")], query=models.FusionQuery(fusion=models.Fusion.RRF), limit=9)
    ask(client, note, "a fusion below a vector", prefetch=[fused], query=vector("q"), limit=ALL)
    ask(client, note, "a fusion of a fusion", prefetch=[fused, prefetch("d")], query=models.FusionQuery(
        fusion=models.Fusion.DBSF), limit=ALL)


def formula(expression, **defaults):
    return models.FormulaQuery(formula=expression, defaults=defaults)


def formulas():
    """Each expression there is."""
    place = models.GeoDistance(geo_distance=models.GeoDistanceParams(origin=models.GeoPoint(lon=1, lat=45), to="place"))
    decay = models.DecayParamsExpression
    at = models.DatetimeKeyExpression(datetime_key="at")
    june = models.DatetimeExpression(datetime="2024-06-15T00:00:00Z")
    return {
        "score": "$score", "a constant": 1.5, "payload": "price", "second list": formula("$score[1]", **{"$score[1]": -2.0}),
        "sum": models.SumExpression(sum=["$score", "price", 0.5, value("colour", "red")]),
        "product": models.MultExpression(mult=["$score", 3.0, value("even", True)]),
        "negation": models.NegExpression(neg="price"),
        "absolute": models.AbsExpression(abs=models.SumExpression(sum=["price", -50.0])),
        "quotient": models.DivExpression(div=models.DivParams(left="price", right="row", by_zero_default=0.25)),
        "root": models.SqrtExpression(sqrt="price"),
        "power": models.PowExpression(pow=models.PowParams(base="$score", exponent=2.0)),
        "exponential": models.ExpExpression(exp="$score"),
        "log10": models.Log10Expression(log10=models.SumExpression(sum=["price", 1.0])),
        "ln": models.LnExpression(ln=models.SumExpression(sum=["price", 1.0])),
        "distance": models.NegExpression(neg=models.DivExpression(div=models.DivParams(left=place, right=1_000.0))),
        "linear decay": models.LinDecayExpression(lin_decay=decay(x="price", target=40.0, scale=30.0, midpoint=0.4)),
        "exponential decay": models.ExpDecayExpression(exp_decay=decay(x=place, scale=900_000.0)),
        "gaussian decay": models.GaussDecayExpression(gauss_decay=decay(x=at, target=june, scale=86_400.0 * 60)),
        "a default": formula(models.SumExpression(sum=["$score", "missing"]), missing=7.0),
        "a filter": models.SumExpression(sum=["$score", must(value("even", True), field("price", range=models.Range(lt=60)))]),
    }


def formulas_score_again(client, note):
    filled(client, NAME)
    for key, kind in (("price", "float"), ("place", "geo"), ("at", "datetime"), ("colour", "keyword"), ("even", "bool"),
                      ("row", "integer")):
        client.create_payload_index(NAME, key, field_schema=kind, wait=True)
    both = [prefetch("a", 25), prefetch("b", 25)]
    default = {"$score": -1.0}
    for name, expression in formulas().items():
        query = expression if isinstance(expression, models.FormulaQuery) else formula(expression, **default)
        ask(client, note, name, prefetch=both, query=query, limit=ALL)
    ask(client, note, "page", prefetch=both, query=formula("price"), limit=4, offset=3, score_threshold=30, with_payload=True)
    note.refused("no value", lambda: client.query_points(NAME, prefetch=both, query=formula("missing")))


def results_are_diverse(client, note):
    for metric in with_each_metric(client):
        for diversity in (None, 0.0, 0.3, 1.0):
            for limit in (None, 30):
                query = models.NearestQuery(nearest=vector("q"), mmr=models.Mmr(diversity=diversity, candidates_limit=limit))
                note(f"{metric} {diversity} {limit}",
                     lambda: client.query_points(NAME, query=query, limit=12, with_payload=False).points)
    query = models.NearestQuery(nearest=4, mmr=models.Mmr(diversity=0.5, candidates_limit=40))
    note("of a point", client.query_points(NAME, query=query, limit=5, offset=2, query_filter=must(value("even", True))))


def feedback_moves_a_query(client, note):
    for metric in with_each_metric(client):
        items = [models.FeedbackItem(example=row, score=score) for row, score in ((1, 0.9), (2, 0.4), (point_id(7), 0.1))]
        strategy = models.NaiveFeedbackStrategy(naive=models.NaiveFeedbackStrategyParams(a=0.6, b=0.8, c=0.5))
        ask(client, note, metric, limit=ALL, query=models.RelevanceFeedbackQuery(
            relevance_feedback=models.RelevanceFeedbackInput(target=vector("t"), feedback=items, strategy=strategy)))


def vectors_are_looked_up_elsewhere(client, note):
    filled(client, NAME)
    fresh(client, OTHER, vectors_config={"v": models.VectorParams(size=DIM, distance=models.Distance.COSINE)})
    client.upsert(OTHER, points(range(5), lambda row: {"v": vector(f"other {row}")}))
    there = models.LookupLocation(collection=OTHER, vector="v")
    ask(client, note, "nearest", query=3, lookup_from=there, limit=ALL)
    ask(client, note, "recommend", query=recommend(None, [1, 2], [4]), lookup_from=there, limit=ALL)
    ask(client, note, "in a prefetch", query=vector("q"), limit=ALL, prefetch=models.Prefetch(
        query=2, lookup_from=there, limit=10))
    note.refused("not there", lambda: client.query_points(NAME, query=30, lookup_from=there))


def groups(client, note, name, group_by="colour", **more):
    note(name, lambda: client.query_points_groups(NAME, group_by=group_by, **({"query": vector("q")} | more)).groups)


def hits_are_grouped(client, note):
    filled(client, NAME)
    for key, kind in (("colour", "keyword"), ("tags", "keyword"), ("deep.er.level", "integer")):
        client.create_payload_index(NAME, key, field_schema=kind, wait=True)
        groups(client, note, f"by {key}", key)
        groups(client, note, f"two by {key}", key, limit=2, group_size=2, with_payload=False, with_vectors=True)
        groups(client, note, f"matching by {key}", key, query_filter=must(value("even", True)), group_size=50)
    groups(client, note, "of a point", query=3, score_threshold=0.1)
    groups(client, note, "fused", prefetch=[prefetch("a", 100), prefetch("b", 100)], group_size=1, limit=3,
           query=models.RrfQuery(rrf=models.Rrf(weights=[1.0, 2.7])))
    fresh(client, OTHER)
    client.upsert(OTHER, [models.PointStruct(id=level, vector=vector(level), payload={"level": level, "more": 1})
                          for level in range(3)])
    groups(client, note, "with a lookup", "deep.er.level", with_lookup=OTHER, group_size=1, with_payload=False)
    some = models.WithLookup(collection=OTHER, with_payload=["level"], with_vectors=True)
    groups(client, note, "with some of a lookup", "deep.er.level", group_size=1, with_payload=False, with_lookup=some)


def queries_come_in_batches(client, note):
    filled(client, NAME)
    requests = [
        models.QueryRequest(query=vector("a"), limit=5), models.QueryRequest(query=3, limit=4, offset=1, with_payload=True),
        models.QueryRequest(query=recommend("best_score", [1], [2]), limit=6, filter=must(value("even", True))),
        models.QueryRequest(prefetch=[prefetch("a"), prefetch("b")], query=models.RrfQuery(rrf=models.Rrf(k=3)), limit=7),
        models.QueryRequest(query=vector("b"), limit=3, with_vector=True, score_threshold=0.1),
    ]
    for place, answer in enumerate(client.query_batch_points(NAME, requests)):
        note.hits(f"answer {place}", answer.points)


def distances_of_all_to_all(client, note):
    filled(client, NAME)
    for name, more in (("all", {"sample": ALL, "limit": 4}),
                       ("some", {"sample": ALL, "limit": 3, "query_filter": must(value("colour", "green"))})):
        note.set(f"pairs of {name}", client.search_matrix_pairs(NAME, **more).pairs)
        found = client.search_matrix_offsets(NAME, **more)
        cells = zip(found.offsets_row, found.offsets_col, found.scores)
        note.set(f"offsets of {name}", [(found.ids[row], found.ids[column], score) for row, column, score in cells])
        note.set(f"ids of {name}", found.ids)
    pairs = client.search_matrix_pairs(NAME, sample=6, limit=2).pairs
    note("a sample", [len(pairs), len({pair.a for pair in pairs})])


TWINS = [
    nearest_of_a_vector_and_of_a_point, pages_thresholds_and_selections, recommendations_follow_their_strategy,
    discoveries_prefer_what_the_context_prefers, contexts_are_searched, points_are_ordered_by_a_field,
    samples_are_some_of_the_points, lists_are_fused, prefetches_are_nested, formulas_score_again, results_are_diverse,
    feedback_moves_a_query, vectors_are_looked_up_elsewhere, hits_are_grouped, queries_come_in_batches, distances_of_all_to_all,
]
