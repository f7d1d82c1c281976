"""The libraries that Vicinal is measured beside: how each is built and which of its settings are swept.

A contender is a list of configurations; each is built in a process of its own, and all their points count for the
contender. `build(config, base, metric, threads)` returns `(params, points, prepare)`: what the index was built with; pairs
of further parameters and a function `(queries, k) -> rows` that answers all queries on one thread; and what brings the
queries into the form that the index takes (None: they are in it), which is not timed.
"""

import math
from dataclasses import dataclass, field
from typing import Callable

import numpy as np

BEAMS = (10, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


class Unfit(Exception):
    """A contender that cannot do what is asked for, and why."""


@dataclass
class Contender:
    """A library, the package it comes in, and its configurations."""

    package: str
    build: Callable
    configs: list = field(default_factory=lambda: [{}])


def choose(choices, metric):
    if metric not in choices:
        raise Unfit(f"no metric {metric}")
    return choices[metric]


def after(setup, search):
    """A search whose setting is made once, by the warm-up, and not in what is timed."""
    made = []

    def run(queries, k):
        if not made:
            setup()
            made.append(True)
        return search(queries, k)

    return run


def hnswlib(config, base, metric, threads):
    import hnswlib as library

    index = library.Index(choose({"l2": "l2", "cosine": "ip", "ip": "ip"}, metric), base.shape[1])
    index.init_index(len(base), **config)
    index.add_items(base, num_threads=threads)

    def search(queries, k):
        return index.knn_query(queries, k, num_threads=1)[0]

    return config, [({"ef": ef}, after(lambda ef=ef: index.set_ef(ef), search)) for ef in BEAMS], None


def faiss(config, base, metric, threads):
    import faiss as library

    kind = choose(
        {
            "l2": library.METRIC_L2,
            "cosine": library.METRIC_INNER_PRODUCT,
            "ip": library.METRIC_INNER_PRODUCT,
            "l1": library.METRIC_L1,
        },
        metric,
    )
    library.omp_set_num_threads(threads)
    index = library.index_factory(base.shape[1], config["index"], kind)
    if "efConstruction" in config:
        index.hnsw.efConstruction = config["efConstruction"]
    index.train(base)
    index.add(base)

    def one_thread(ef):
        library.omp_set_num_threads(1)
        if ef is not None:
            index.hnsw.efSearch = ef

    def search(queries, k):
        return index.search(queries, k)[1]

    beams = BEAMS if "HNSW" in config["index"] else (None,)
    return config, [
        ({} if ef is None else {"ef": ef}, after(lambda ef=ef: one_thread(ef), search)) for ef in beams
    ], None


def usearch(config, base, metric, threads):
    from usearch.index import Index

    prepare = eight_bits(base, metric) if config["dtype"] == "i8" else None
    index = Index(
        ndim=base.shape[1],
        metric=choose({"l2": "l2sq", "cosine": "cos", "ip": "ip"}, metric),
        dtype=config["dtype"],
        connectivity=config["M"],
        expansion_add=config["ef_construction"],
    )
    index.add(np.arange(len(base)), prepare(base) if prepare else base, threads=threads)

    def search(queries, k):
        return index.search(queries, k, threads=1).keys

    def beam(ef):
        index.expansion_search = ef

    return config, [({"ef": ef}, after(lambda ef=ef: beam(ef), search)) for ef in BEAMS], prepare


def eight_bits(base, metric):
    """Rounds vectors to whole numbers of eight bits, by one scale for all: the library's own conversion is made for
    vectors of unit length. Euclidean distances, but not angles, also stay the same when all values are moved."""
    low, high = float(base.min()), float(base.max())
    middle = (low + high) / 2 if metric == "l2" else 0.0
    scale = 127 / max(high - middle, middle - low, 1e-30)

    def rounded(vectors):
        return np.clip(np.rint((vectors - np.float32(middle)) * np.float32(scale)), -127, 127).astype(np.int8)

    return rounded


def scann(config, base, metric, threads):
    import scann as library

    kind = choose({"l2": "squared_l2", "cosine": "dot_product", "ip": "dot_product"}, metric)
    leaves = max(1, int(config["leaves_per_sqrt_n"] * math.sqrt(len(base))))
    threshold = 0.2 if kind == "dot_product" else float("nan")
    builder = library.scann_ops_pybind.builder(base, 10, kind).set_n_training_threads(threads)
    builder = builder.tree(leaves, min(100, leaves), training_sample_size=min(len(base), 250_000))
    builder = builder.score_ah(2, anisotropic_quantization_threshold=threshold).reorder(100)
    index = builder.build()

    def search(searched, reordered):
        return lambda queries, k: index.search_batched(
            queries, k, pre_reorder_num_neighbors=max(reordered, k), leaves_to_search=searched
        )[0]

    steps = [(3, 30), (5, 40), (10, 50), (15, 60), (25, 80), (40, 100), (60, 150), (100, 200), (200, 400)]
    return {"leaves": leaves}, [
        ({"searched": searched, "reordered": reordered}, search(searched, reordered))
        for searched, reordered in steps
        if searched <= leaves
    ], None


def glass(config, base, metric, threads):
    import glass as library

    kind = choose({"l2": "L2", "cosine": "IP", "ip": "IP"}, metric)
    library.set_num_threads(threads)
    graph = library.Index("HNSW", kind, "FP32", config["R"], config["L"]).build(base)
    searcher = library.Searcher(graph, base, kind, config["quantizer"], config.get("refined", ""))

    def beam(ef):
        library.set_num_threads(1)
        searcher.set_ef(ef)

    def search(queries, k):
        return searcher.batch_search(queries, k, 1)[0]

    return config, [({"ef": ef}, after(lambda ef=ef: beam(ef), search)) for ef in BEAMS], None


def annoy(config, base, metric, threads):
    from annoy import AnnoyIndex

    index = AnnoyIndex(
        base.shape[1], choose({"l2": "euclidean", "cosine": "angular", "ip": "dot", "l1": "manhattan"}, metric)
    )
    for row, vector in enumerate(base):
        index.add_item(row, vector)
    index.build(config["trees"], n_jobs=threads)

    def search(nodes):
        return lambda queries, k: [index.get_nns_by_vector(vector, k, search_k=nodes) for vector in queries]

    nodes = (500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000)
    return config, [({"search_k": n}, search(n)) for n in nodes], None


CONTENDERS = {
    "hnswlib": Contender("hnswlib", hnswlib, [{"M": m, "ef_construction": 200} for m in (16, 32)]),
    "faiss-hnsw": Contender("faiss-cpu", faiss, [{"index": "HNSW32,Flat", "efConstruction": 200}]),
    "faiss-hnsw-sq8": Contender("faiss-cpu", faiss, [{"index": "HNSW32,SQ8", "efConstruction": 200}]),
    "usearch-f32": Contender("usearch", usearch, [{"dtype": "f32", "M": 16, "ef_construction": 200}]),
    "usearch-i8": Contender("usearch", usearch, [{"dtype": "i8", "M": 16, "ef_construction": 200}]),
    "scann": Contender("scann", scann, [{"leaves_per_sqrt_n": 2}]),
    "glass-sq8": Contender(
        "pyglass-portable",
        glass,
        [{"R": 32, "L": 200, "quantizer": "SQ8U", "refined": refined} for refined in ("", "FP32")],
    ),
    "glass-fp32": Contender("pyglass-portable", glass, [{"R": 32, "L": 200, "quantizer": "FP32"}]),
    "faiss-flat": Contender("faiss-cpu", faiss, [{"index": "Flat"}]),
    "annoy": Contender("annoy", annoy, [{"trees": 50}]),
}
