"""Points that the scenarios work on: made from a seed, without ties, with payloads of every kind."""

import random
import uuid

from qdrant_client import models

DIM = 6
ROWS = 60
INDEXED_SECONDS = 60
# Two replicas of three shards: one process holds them all, three nodes share them.
PLACED = {"shard_number": 3, "replication_factor": 2}
COLOURS = ["red", "green", "blue", "light grey"]
WORDS = ["near", "far", "graph", "vector", "shard", "leader", "quick", "Fox"]


def vector(row, dim=DIM, of="dense"):
    made = random.Random(f"{of} {row}")
    return [round(made.uniform(-1, 1), 4) for _ in range(dim)]


def sparse(row, of="sparse"):
    made = random.Random(f"{of} {row}")
    indices = sorted(made.sample(range(30), made.randint(2, 8)))
    return models.SparseVector(indices=indices, values=[round(made.uniform(0.1, 2), 4) for _ in indices])


def multi(row, dim=4, of="multi"):
    made = random.Random(f"{of} {row}")
    return [vector(f"{row} {part}", dim, of) for part in range(made.randint(1, 4))]


def point_id(row):
    """Most ids are numbers, each seventh is a UUID."""
    return row if row % 7 else str(uuid.UUID(int=row + 1))


def payload(row):
    made = random.Random(f"payload {row}")
    full = {
        "row": row, "colour": COLOURS[row % len(COLOURS)], "price": round(made.uniform(0, 100), 2), "even": row % 2 == 0,
        "tags": made.sample(["a", "b", "c", "d"], made.randrange(4)),
        "text": " ".join(made.choice(WORDS) for _ in range(4)) + ".",
        "at": f"2024-{1 + row % 12:02}-{1 + row % 28:02}T{row % 24:02}:30:00Z",
        "place": {"lon": round(made.uniform(-20, 20), 4), "lat": round(made.uniform(30, 60), 4)},
        "parts": [{"name": made.choice("xyz"), "n": made.randrange(5)} for _ in range(made.randrange(3))],
        "deep": {"er": {"level": row % 5}},
        "uuid": str(uuid.UUID(int=row % 9 + 1)),
    }
    if row % 5 == 0:
        full["maybe"] = None if row % 10 == 0 else "here"
    return full


def points(rows=range(ROWS), make=vector):
    return [models.PointStruct(id=point_id(row), vector=make(row), payload=payload(row)) for row in rows]


def fresh(client, name, **create):
    """An empty collection of that name."""
    client.delete_collection(name)
    settings = {"vectors_config": models.VectorParams(size=DIM, distance=models.Distance.COSINE)} | PLACED | create
    assert client.create_collection(name, **settings)


def filled(client, name, rows=range(ROWS), make=vector, **create):
    fresh(client, name, **create)
    client.upsert(name, points(rows, make), wait=True)


def field(key, **condition):
    return models.FieldCondition(key=key, **condition)


def value(key, wanted):
    return field(key, match=models.MatchValue(value=wanted))


def must(*conditions):
    return models.Filter(must=list(conditions))


def everything(client, note, name, label="all points"):
    """Notes all points of a collection with all they have."""
    note(label, client.scroll(name, limit=1_000, with_payload=True, with_vectors=True))
