"""Random operations on a collection. All is made of plain values, so that both sides of a comparison get the same."""

import random
import uuid

from qdrant_client import models

IDS = 60
# Enough to leave out nothing.
ALL = 2 * IDS
DENSE = {"a": (4, models.Distance.COSINE), "b": (3, models.Distance.EUCLID), "c": (5, models.Distance.DOT),
         "d": (2, models.Distance.MANHATTAN)}
SPARSE, MULTI, MULTI_DIM = "s", "m", 3
# Fields whose values are all of one type, as their indexes need it: facets, groups and orders follow them.
TYPED = {"f": "keyword", "i": "integer", "r": "float", "w": "datetime"}
WORDS = ["red", "green", "blue", "a longer text", "red or green text", "Longer words, blue."]


class Work:
    """Makes operations, except of the kinds that are switched off."""

    def __init__(self, seed, off=()):
        self.random, self.off = random.Random(seed), set(off)
        self.names = sorted(DENSE) + [name for name, kind in ((SPARSE, "sparse"), (MULTI, "multivectors")) if self.has(kind)]

    def has(self, kind):
        return kind not in self.off

    def chance(self, probability):
        return self.random.random() < probability

    def choose(self, makers):
        """What one of these makes: pairs of a kind, or None, and a maker."""
        return self.random.choice([maker for kind, maker in makers if kind is None or self.has(kind)])()

    def id(self):
        number = self.random.randrange(IDS)
        return number if number % 6 else str(uuid.UUID(int=number + 1))

    def ids(self, least=1):
        return [self.id() for _ in range(self.random.randint(least, 5))]

    def numbers(self, count):
        return [round(self.random.uniform(-1, 1), 3) for _ in range(count)]

    def vector(self, name):
        if name == SPARSE:
            indices = self.random.sample(range(20), self.random.randint(1, 6))
            return models.SparseVector(indices=indices, values=[round(self.random.uniform(0.1, 2), 6) for _ in indices])
        if name == MULTI:
            return [self.numbers(MULTI_DIM) for _ in range(self.random.randint(1, 3))]
        return self.numbers(DENSE[name][0])

    def vectors(self, least=0):
        names = self.random.sample(self.names, self.random.randint(least, len(self.names)))
        return {name: self.vector(name) for name in names}

    def value(self, depth=2):
        r = self.random
        kind = r.randrange(9 if depth else 6)
        if kind == 0:
            return r.randrange(5)
        if kind == 1:
            return r.randrange(40) / 4
        if kind == 2:
            return r.choice(WORDS)
        if kind == 3:
            return r.random() < 0.5
        if kind == 4:
            return None
        if kind == 5:
            return self.date()
        if kind == 6:
            return [self.value(depth - 1) for _ in range(r.randrange(4))]
        return {key: self.value(depth - 1) for key in r.sample("xyz", r.randrange(3))}

    def date(self):
        return f"2024-0{self.random.randint(1, 9)}-1{self.random.randrange(10)}T00:00:00Z"

    def place(self):
        return {"lon": round(self.random.uniform(-20, 20), 3), "lat": round(self.random.uniform(30, 60), 3)}

    def payload(self):
        r = self.random
        made = {key: self.value() for key in r.sample(["k", "n", "t", "l", "o"], r.randrange(5))}
        typed = {"f": lambda: r.choice([r.choice("uvw"), r.sample("uvw", 2)]), "i": lambda: r.choice([r.randrange(9), [1, 7]]),
                 "r": lambda: round(r.uniform(-50, 50), 3), "w": self.date, "g": self.place,
                 "p": lambda: [{"x": r.randrange(4), "y": r.choice("uvw")} for _ in range(r.randrange(3))]}
        return made | {key: typed[key]() for key in r.sample(sorted(typed), r.randrange(4))}

    def key(self):
        return self.random.choice(["o", "o.x", "o.x.y", "l[]", "l[0]", "l[1].z", "l[].x", "n", "new.path", "new[].q"])

    def point(self):
        return models.PointStruct(id=self.id(), vector=self.vectors(), payload=self.payload())

    # Filters

    def condition(self, depth=1):
        r, on = self.random, models.FieldCondition
        key = r.choice(["k", "n", "t", "o.x", "l[]", "l", "o", "f", "i"])
        words = r.choice(["text", "red", "green text", "longer text", "blue words"])
        corner = self.place()
        makers = [
            (None, lambda: on(key=key, match=models.MatchValue(value=r.choice(["red", 1, True, "blue"])))),
            (None, lambda: on(key=key, match=models.MatchAny(any=r.choice([["red", "green"], [0, 1, 2]])))),
            (None, lambda: on(key=key, match=models.MatchExcept(**{"except": r.choice([["red", "u"], [0, 1]])}))),
            (None, lambda: on(key=key, range=models.Range(gte=r.randrange(3), lt=r.randrange(3, 9)))),
            (None, lambda: on(key=r.choice(["w", "t"]), range=models.DatetimeRange(gte=self.date(), lt="2024-08-01T00:00:00Z"))),
            (None, lambda: models.HasIdCondition(has_id=self.ids())),
            (None, lambda: models.HasVectorCondition(has_vector=r.choice(self.names))),
            (None, lambda: models.IsEmptyCondition(is_empty=models.PayloadField(key=key))),
            (None, lambda: models.IsNullCondition(is_null=models.PayloadField(key=key))),
            (None, lambda: on(key=key, values_count=models.ValuesCount(gte=r.randrange(3)))),
            (None, lambda: on(key="g", geo_radius=models.GeoRadius(center=models.GeoPoint(**corner), radius=1_200_000))),
            (None, lambda: on(key="g", geo_bounding_box=models.GeoBoundingBox(
                top_left=models.GeoPoint(lon=-21, lat=61), bottom_right=models.GeoPoint(**corner)))),
            (None, lambda: models.NestedCondition(nested=models.Nested(key="p", filter=models.Filter(must=[
                on(key="x", range=models.Range(gte=r.randrange(4))), on(key="y", match=models.MatchAny(any=["u", "v"]))])))),
            ("text", lambda: on(key=key, match=models.MatchText(text=words))),
            ("text", lambda: on(key=key, match=models.MatchTextAny(text_any=words))),
            ("text", lambda: on(key=key, match=models.MatchPhrase(phrase=words))),
            (None, lambda: on(key=key, match=models.MatchPrefix(prefix=words[:2]))),
        ]
        if depth:
            makers += [(None, lambda: self.filter(depth - 1))] * 3
        return self.choose(makers)

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
        return self.filter() if self.chance(0.5) else None

    def maybe_must(self):
        """A filter that means the same when its parts are put together with those of another."""
        return models.Filter(must=[self.filter()]) if self.chance(0.5) else None

    def targets(self, by_ids=0.7):
        """Ids or a filter, as the calls that change points take them."""
        if self.chance(by_ids):
            return self.ids()
        return models.FilterSelector(filter=self.filter())

    # Writes

    def start(self):
        """The operation before all others: points with all vectors."""
        def whole():
            vectors = {name: self.vector(name) for name in self.names}
            return models.PointStruct(id=self.id(), vector=vectors, payload=self.payload())

        return "upsert", dict(points=[whole() for _ in range(ALL)])

    def upsert(self):
        mode = self.random.choice([None, None, *models.UpdateMode])
        only = self.filter() if self.chance(0.2) else None
        if self.chance(0.2):
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
            return "delete", dict(points_selector=self.targets(by_ids=0.9))
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
            names = r.sample(self.names, r.randint(1, 2))
            return "delete_vectors", dict(vectors=names, points=self.targets())
        return "batch_update_points", dict(update_operations=self.batch())

    def batch(self):
        def selected():
            return dict(points=self.ids()) if self.chance(0.7) else dict(filter=self.filter())

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
                vector=[self.random.choice(self.names)], **selected())),
        ]
        return [self.random.choice(makers)() for _ in range(self.random.randint(1, 5))]
