"""The same random operations go to the server and to the client's own local mode: all answers must agree.

Known differences, which the sequence leaves out: both `points` and `filter` in one change (refused here), `key` when a payload
is replaced (refused here), counts that are not exact (exact here), two updates of one point's vectors in a request with a
filter (tested once here, before both), and a query and its prefetch that both have `should` or both `min_should` (both filters
must hold here; there the conditions are put together, and any of them is enough).
"""

import random
import uuid

from qdrant_client import QdrantClient, models

NAME = "compare"
OPERATIONS = 2_000
IDS = 60
TOLERANCE = 1e-4
VECTORS = {"a": (4, models.Distance.COSINE), "b": (3, models.Distance.EUCLID), "c": (5, models.Distance.DOT),
           "d": (2, models.Distance.MANHATTAN)}


class Work:
    """Random operations. What it makes is made of plain values, so that both sides get the same."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def id(self):
        number = self.random.randrange(IDS)
        return number if number % 6 else str(uuid.UUID(int=number + 1))

    def ids(self, least=1):
        return [self.id() for _ in range(self.random.randint(least, 5))]

    def vector(self, name):
        return [round(self.random.uniform(-1, 1), 3) for _ in range(VECTORS[name][0])]

    def vectors(self, least=0):
        names = self.random.sample(sorted(VECTORS), self.random.randint(least, len(VECTORS)))
        return {name: self.vector(name) for name in names}

    def value(self, depth=2):
        r = self.random
        kind = r.randrange(9 if depth else 6)
        if kind == 0:
            return r.randrange(5)
        if kind == 1:
            return r.randrange(40) / 4
        if kind == 2:
            return r.choice(["red", "green", "blue", "a longer text"])
        if kind == 3:
            return r.random() < 0.5
        if kind == 4:
            return None
        if kind == 5:
            return f"2024-0{r.randint(1, 9)}-1{r.randrange(10)}T00:00:00Z"
        if kind == 6:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        return {key: self.value(depth - 1) for key in r.sample("xyz", r.randrange(3))}

    def payload(self):
        return {key: self.value() for key in self.random.sample(["k", "n", "t", "l", "o"], self.random.randrange(5))}

    def key(self):
        return self.random.choice(["o", "o.x", "o.x.y", "l[]", "l[0]", "l[1].z", "l[].x", "n", "new.path", "new[].q"])

    def point(self):
        return models.PointStruct(id=self.id(), vector=self.vectors(), payload=self.payload())

    def condition(self, depth=1):
        r = self.random
        key = r.choice(["k", "n", "t", "o.x", "l[]", "l", "o"])
        kind = r.randrange(10 if depth else 8)
        if kind == 0:
            return models.FieldCondition(key=key, match=models.MatchValue(value=r.choice(["red", 1, True, "blue"])))
        if kind == 1:
            return models.FieldCondition(key=key, match=models.MatchAny(any=r.choice([["red", "green"], [0, 1, 2]])))
        if kind == 2:
            return models.FieldCondition(key=key, range=models.Range(gte=r.randrange(3), lt=r.randrange(3, 9)))
        if kind == 3:
            return models.HasIdCondition(has_id=self.ids())
        if kind == 4:
            return models.HasVectorCondition(has_vector=r.choice(sorted(VECTORS)))
        if kind == 5:
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        if kind == 6:
            return models.IsNullCondition(is_null=models.PayloadField(key=key))
        if kind == 7:
            return models.FieldCondition(key=key, values_count=models.ValuesCount(gte=r.randrange(3)))
        return self.filter(depth - 1)

    def filter(self, depth=1):
        def some(least):
            return [self.condition(depth) for _ in range(self.random.randint(least, 2))]

        kind = self.random.randrange(4)
        if kind == 0:
            return models.Filter(must=some(1), must_not=some(0))
        if kind == 1:
            return models.Filter(should=some(1))
        if kind == 2:
            return models.Filter(min_should=models.MinShould(conditions=some(1) + some(1), min_count=1))
        return models.Filter(must_not=some(1))

    def maybe_filter(self):
        return self.filter() if self.random.random() < 0.5 else None

    def maybe_must(self):
        """A filter that means the same when its parts are put together with those of another."""
        return models.Filter(must=[self.filter()]) if self.random.random() < 0.5 else None

    def targets(self):
        """Ids or a filter, as the calls that change points take them."""
        if self.random.random() < 0.7:
            return self.ids()
        return models.FilterSelector(filter=self.filter())

    def upsert(self):
        mode = self.random.choice([None, None, *models.UpdateMode])
        only = self.filter() if self.random.random() < 0.2 else None
        if self.random.random() < 0.2:
            ids = sorted(set(map(str, range(self.random.randint(1, 5)))))
            columns = models.Batch(ids=[int(i) for i in ids], vectors={"b": [self.vector("b") for _ in ids]},
                                   payloads=[self.payload() for _ in ids])
            return "upsert", dict(points=columns, update_mode=mode, update_filter=only)
        points = [self.point() for _ in range(self.random.randint(1, 6))]
        return "upsert", dict(points=points, update_mode=mode, update_filter=only)

    def change(self):
        r = self.random
        kind = r.randrange(8)
        if kind == 0:
            return "delete", dict(points_selector=self.targets())
        if kind == 1:
            key = self.key() if r.random() < 0.5 else None
            return "set_payload", dict(payload=self.payload(), points=self.targets(), key=key)
        if kind == 2:
            return "overwrite_payload", dict(payload=self.payload(), points=self.targets())
        if kind == 3:
            return "delete_payload", dict(keys=[self.key() for _ in range(r.randint(1, 2))], points=self.targets())
        if kind == 4:
            return "clear_payload", dict(points_selector=self.targets())
        if kind == 5:
            only = self.filter() if r.random() < 0.2 else None
            ids = self.ids() if only is None else list(dict.fromkeys(self.ids()))
            points = [models.PointVectors(id=id, vector=self.vectors(1)) for id in ids]
            return "update_vectors", dict(points=points, update_filter=only)
        if kind == 6:
            names = r.sample(sorted(VECTORS), r.randint(1, 2))
            return "delete_vectors", dict(vectors=names, points=self.targets())
        return "batch_update_points", dict(update_operations=self.batch())

    def batch(self):
        def selected():
            if self.random.random() < 0.7:
                return dict(points=self.ids())
            return dict(filter=self.filter())

        def selector():
            chosen = selected()
            return models.PointIdsList(**chosen) if "points" in chosen else models.FilterSelector(**chosen)

        makers = [
            lambda: models.UpsertOperation(upsert=models.PointsList(points=[self.point() for _ in range(2)])),
            lambda: models.DeleteOperation(delete=selector()),
            lambda: models.SetPayloadOperation(set_payload=models.SetPayload(payload=self.payload(), **selected())),
            lambda: models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=self.payload(), **selected())),
            lambda: models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=[self.key()], **selected())),
            lambda: models.ClearPayloadOperation(clear_payload=selector()),
            lambda: models.UpdateVectorsOperation(update_vectors=models.UpdateVectors(
                points=[models.PointVectors(id=self.id(), vector=self.vectors(1))])),
            lambda: models.DeleteVectorsOperation(delete_vectors=models.DeleteVectors(
                vector=[self.random.choice(sorted(VECTORS))], **selected())),
        ]
        return [self.random.choice(makers)() for _ in range(self.random.randint(1, 5))]

    def read(self):
        r = self.random
        kind = r.randrange(7)
        if kind == 0:
            return "retrieve", dict(ids=sorted(set(self.ids()), key=str), with_payload=True, with_vectors=True)
        if kind == 1:
            return "scroll", dict(scroll_filter=self.maybe_filter(), limit=r.randint(1, 20), with_payload=True,
                                  with_vectors=r.random() < 0.3, offset=self.id() if r.random() < 0.3 else None)
        if kind == 2:
            return "count", dict(count_filter=self.maybe_filter(), exact=True)
        if kind == 3:
            return "query_points", dict(query=self.fusion(), prefetch=[self.prefetch(1), self.prefetch(1)],
                                        limit=r.randint(1, 15), query_filter=self.maybe_must(),
                                        offset=r.choice([None, 1]), with_payload=r.random() < 0.3)
        name = r.choice(sorted(VECTORS))
        query = self.query(name)
        if kind == 4:
            return "query_points", dict(query=query, using=name, prefetch=self.prefetch(1), limit=r.randint(1, 15),
                                        query_filter=self.maybe_must())
        threshold = r.uniform(-1, 2) if r.random() < 0.2 else None
        return "query_points", dict(query=query, using=name, limit=r.randint(1, 15), query_filter=self.maybe_filter(),
                                    score_threshold=threshold, with_payload=r.random() < 0.3,
                                    offset=r.choice([None, None, 2]))

    def query(self, name):
        """A vector, an id, or examples."""
        def example():
            return self.vector(name) if self.random.random() < 0.7 else self.id()

        if self.random.random() < 0.7:
            return example()
        examples = [[example() for _ in range(self.random.randint(least, 2))] for least in (1, 0)]
        return models.RecommendQuery(recommend=models.RecommendInput(positive=examples[0], negative=examples[1]))

    def fusion(self):
        r = self.random
        if r.random() < 0.5:
            return models.FusionQuery(fusion=r.choice(list(models.Fusion)))
        weights = [r.randrange(4), 1.5] if r.random() < 0.5 else None
        return models.RrfQuery(rrf=models.Rrf(k=r.choice([None, 1, 60]), weights=weights))

    def prefetch(self, depth):
        name = self.random.choice(sorted(VECTORS))
        below = [self.prefetch(depth - 1)] if depth and self.random.random() < 0.4 else None
        return models.Prefetch(query=self.query(name), using=name, prefetch=below, limit=self.random.randint(5, 30),
                               filter=self.maybe_must())

    def operation(self):
        dice = self.random.random()
        return self.upsert() if dice < 0.2 else self.change() if dice < 0.5 else self.read()


def ask(client, call, arguments):
    """The answer, or that there is none."""
    try:
        return getattr(client, call)(NAME, **arguments), None
    except Exception as error:  # local mode has errors of many kinds; whether there is one is what is compared
        return None, error


def plain(value):
    """An answer as values that can be compared."""
    if hasattr(value, "model_dump"):
        return plain(value.model_dump(exclude_none=True))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key not in ("version", "operation_id")}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def same(a, b):
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return abs(a - b) <= TOLERANCE * max(1, abs(a))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def hits_agree(ours, theirs):
    """Of hits that are equally near either may come first, or be the last one shown."""
    ours, theirs = ours["points"], theirs["points"]
    if len(ours) != len(theirs) or not all(same(a["score"], b["score"]) for a, b in zip(ours, theirs)):
        return False
    if not ours:
        return True
    last = ours[-1]["score"]
    by_id = {hit["id"]: hit for hit in theirs}
    return all(hit["id"] in by_id and same(hit, by_id[hit["id"]]) for hit in ours if not same(hit["score"], last))


def agree(call, ours, theirs):
    if call == "query_points":
        return hits_agree(ours, theirs)
    if call == "retrieve":
        ours, theirs = ([sorted(points, key=lambda point: str(point["id"])) for points in (ours, theirs)])
    return same(ours, theirs)


def run(client, seed, operations=OPERATIONS):
    local = QdrantClient(":memory:")
    vectors = {name: models.VectorParams(size=dim, distance=distance) for name, (dim, distance) in VECTORS.items()}
    client.delete_collection(NAME)
    for side in (client, local):
        side.create_collection(NAME, vectors_config=vectors)
    work, refused, hits = Work(seed), 0, 0
    for step in range(operations):
        call, arguments = work.operation()
        (ours, our_error), (theirs, their_error) = (ask(side, call, arguments) for side in (client, local))
        said = f"seed {seed}, step {step}: {call}({arguments})"
        assert (our_error is None) == (their_error is None), f"{said}\nhere {our_error!r}\nlocal {their_error!r}"
        refused += our_error is not None
        if our_error is None:
            ours, theirs = plain(ours), plain(theirs)
            assert agree(call, ours, theirs), f"{said}\nhere  {ours}\nlocal {theirs}"
            hits += len(ours["points"]) if call == "query_points" else 0
        if step % 100 == 99:
            everything = dict(limit=1_000, with_payload=True, with_vectors=True)
            ours, theirs = (plain(side.scroll(NAME, **everything)) for side in (client, local))
            assert same(ours, theirs), f"after {said}\nhere  {ours}\nlocal {theirs}"
    assert hits > operations / 4 and refused < operations / 2, (hits, refused)
    return f"{operations} operations, {refused} refused by both, {hits} hits"


def random_operations_agree_with_local_mode(client):
    return run(client, seed=1)


CHECKS = [random_operations_agree_with_local_mode]
