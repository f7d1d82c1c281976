"""Tiny embedders that need no model: words are hashed, equal words make texts near."""

import zlib

import numpy as np

DIM = 24
SPARSE_INDICES = 5_000


def words(text):
    return text.lower().replace(".", " ").replace(",", " ").split()


def dense(text):
    """The sum of a random unit vector for each word, and a little of one for the whole text, so that none are equal."""
    total = np.zeros(DIM)
    for word, weight in [*((word, 1.0) for word in words(text)), (f"text {text}", 0.3)]:
        vector = np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIM)
        total += weight * vector / np.linalg.norm(vector)
    return [round(float(value), 6) for value in total / np.linalg.norm(total)]


def sparse(text):
    """Indices in order, and values: how often a word is there, more for longer ones; no two texts have the same values, as
    texts with equal scores would be fused in any order."""
    weight = 1 + zlib.crc32(text.encode()) % 1_000 / 2_000
    counts = {}
    for word in words(text):
        index = zlib.crc32(word.encode()) % SPARSE_INDICES
        counts[index] = counts.get(index, 0.0) + 1.0 + len(word) / 10
    indices = sorted(counts)
    return indices, [round(weight * counts[index], 4) for index in indices]


TEXTS = [
    "A raft group elects a leader and copies its log to the followers.",
    "The leader of a shard orders all writes, its followers apply them.",
    "A graph of neighbours is walked from far to near.",
    "Vectors that are near have much the same meaning.",
    "Payload filters keep the points that a query wants.",
    "The log is synced before a write is acknowledged.",
    "A snapshot is sent to a follower that was away for long.",
    "Sparse vectors have an index for each word, few of them are set.",
    "Hybrid search joins what dense and sparse queries found.",
    "A coordinator scatters a query to all shards and gathers the best.",
    "Cats sleep most of the day and hunt at night.",
    "A cat that sleeps does not hunt.",
]
