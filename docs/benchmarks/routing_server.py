#!/usr/bin/env python3
"""Recall and search shards asked of a server whose collection is routed by cluster: queries one after the other.

Creates the collection `routing_bench` anew. The neighbours are computed here, so `--limit` may be any number. Beside the queries of
the set: other kinds of queries (`--kinds`, as in `vicinal bench routing`), and filters (`--filters`) that match points by chance or
those around a point.
"""

import argparse
import json
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np

K = 10
BATCH = 500
TARGETS = (0.9, 0.95, 0.99)
PARAMS = [{"recall_target": target} for target in (0.9, 0.95, 0.98, 0.99)]
PARAMS += [{"nprobe_shards": 1}, {"routing": "all"}, {"routing": "homes"}]
KINDS = ("pairs", "triples", "mixed", "noise06", "noise1", "noise2", "halves", "permuted", "centred", "opposite")
KINDS += ("random",)
# Payload field, and the share of the points that have it.
FILTERS = {"half": 0.5, "tenth": 0.1, "hundredth": 0.01, "thousandth": 0.001}


def call(url, method, path, body=None):
    """The answer's body and headers; what is not answered with 200 ends the run."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, method=method, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from error


def unit(rows):
    return (rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-12)).astype("f4")


def made(kind, base, count, rng):
    """Queries of a kind, of unit vectors."""
    def points():
        return base[rng.choice(len(base), count)]

    noise = {"noise06": 0.6, "noise1": 1.0, "noise2": 2.0}
    dim = base.shape[1]
    if kind in noise:
        return unit(points() + noise[kind] / np.sqrt(dim) * rng.standard_normal((count, dim)))
    if kind == "pairs":
        return unit(points() + points())
    if kind == "triples":
        return unit(points() + points() + points())
    if kind == "mixed":
        part = rng.random((count, 1))
        return unit(part * points() + (1 - part) * points())
    if kind == "halves":
        return unit(points() * (rng.random((count, dim)) < 0.5))
    if kind == "permuted":
        return unit(points()[:, rng.permutation(dim)])
    if kind == "centred":
        return unit(points() - base.mean(0))
    return unit(-points()) if kind == "opposite" else unit(rng.standard_normal((count, dim)))


def neighbours(queries, base, matching=None):
    """The ids of the nearest that match, in no order."""
    rows = np.arange(len(base)) if matching is None else np.flatnonzero(matching)
    out = []
    for query in unit(queries):
        scores = base[rows] @ query if matching is not None else base @ query
        best = np.argpartition(-scores, K)[:K] if len(rows) > K else np.arange(len(rows))
        out.append(set(rows[best].tolist()))
    return out


def ask(url, of, queries, truth, params, condition=None):
    """Recall, shards asked on average, shares of answers that were widened and that come from all, times in ms."""
    found, wanted, shards, times, kinds = 0, 0, 0, [], []
    for query, right in zip(queries, truth):
        body = {"query": query.tolist(), "limit": K, "params": params}
        if condition:
            body["filter"] = condition
        begun = time.time()
        answer, headers = call(url, "POST", f"{of}/points/query", body)
        times.append(1e3 * (time.time() - begun))
        found += len({hit["id"] for hit in answer["result"]["points"]} & right)
        wanted += len(right)
        routed = json.loads(headers.get("x-vicinal-routing", "{}"))
        shards += routed.get("search_shards_asked", 0)
        kinds.append(routed.get("reason", {}).get("kind", ""))
    count = len(queries)
    return found / wanted, shards / count, kinds.count("widened") / count, kinds.count("all") / count, sorted(times)


def main():
    """Loads, waits, asks, prints a row of a table per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:6333")
    parser.add_argument("--data", type=Path, required=True, help="directory with base.npy and query.npy, cosine")
    parser.add_argument("--limit", type=int, default=100_000, help="vectors loaded")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--search-shards", type=int, default=8)
    parser.add_argument("--kinds", type=int, default=0, metavar="QUERIES", help="so many queries of each other kind")
    parser.add_argument("--filters", type=int, default=0, metavar="QUERIES", help="so many queries with each filter")
    args = parser.parse_args()
    base = np.load(args.data / "base.npy", mmap_mode="r")[: args.limit].astype("f4")
    queries = np.load(args.data / "query.npy")[: args.queries].astype("f4")
    known = unit(base)
    rng = np.random.default_rng(7)
    # By field: the points that have it by chance, and those around a point.
    chance, around = rng.random(len(base)), {}
    for field, share in FILTERS.items():
        near = np.argsort(-(known @ known[rng.integers(len(base))]), kind="stable")[: max(1, int(share * len(base)))]
        around[field] = np.zeros(len(base), dtype=bool)
        around[field][near] = True

    def payload(row):
        if not args.filters:
            return {}
        fields = {f"chance_{field}": True for field, share in FILTERS.items() if chance[row] < share}
        return fields | {f"around_{field}": True for field in FILTERS if around[field][row]}

    of = "/collections/routing_bench"
    call(args.url, "DELETE", of)
    routing = {"method": "cluster", "search_shards": args.search_shards, "from_points": len(base)}
    vectors = {"size": base.shape[1], "distance": "Cosine"}
    call(args.url, "PUT", of, {"vectors": vectors, "shard_number": 2, "routing": routing})
    for field in FILTERS if args.filters else ():
        for kind in ("chance", "around"):
            call(args.url, "PUT", f"{of}/index?wait=true", {"field_name": f"{kind}_{field}", "field_schema": "bool"})
    for first in range(0, len(base), BATCH):
        rows = enumerate(base[first : first + BATCH], first)
        points = [{"id": id, "vector": row.tolist(), "payload": payload(id)} for id, row in rows]
        call(args.url, "PUT", f"{of}/points?wait=true", {"points": points})
    loaded = time.time()
    while True:
        told = call(args.url, "GET", of)[0]["result"]
        if told["routing"]["serving"] and not told["routing"]["next"] and told["status"] == "green":
            break
        if time.time() - loaded > 1_800:
            raise SystemExit(f"no map is served: {told['routing']}")
        time.sleep(1)
    print(f"a map is served and everything has a graph {time.time() - loaded:.0f} s after the last point\n")
    truth = neighbours(queries, known)
    print("| asked for | recall@10 | search shards asked | p50 ms |\n|---|---:|---:|---:|")
    for params in PARAMS:
        recall, shards, _, _, times = ask(args.url, of, queries, truth, params)
        what = ", ".join(f"`{name}: {value}`" for name, value in params.items())
        print(f"| {what} | {recall:.4f} | {shards:.2f} | {times[len(times) // 2]:.1f} |", flush=True)
    heads = " | ".join(f"`{target}`" for target in TARGETS)
    if args.kinds:
        print(f"\nrecall (mean shards; widened, all)\n\n| queries | {heads} |\n|---|---|---|---|")
        for kind in KINDS:
            queries = made(kind, known, args.kinds, rng)
            show(args.url, of, kind, queries, neighbours(queries, known))
    if args.filters:
        print(f"\nrecall (mean shards; widened, all)\n\n| filter | {heads} |\n|---|---|---|---|")
        own = unit(np.load(args.data / "query.npy")[: args.filters].astype("f4"))
        for field, share in FILTERS.items():
            near = known[rng.choice(np.flatnonzero(around[field]), args.filters)]
            near = unit(near + 0.3 / np.sqrt(near.shape[1]) * rng.standard_normal(near.shape))
            for what, name, queries, matching in (
                ("by chance", f"chance_{field}", own, chance < share),
                ("around the query", f"around_{field}", near, around[field]),
                ("around another point", f"around_{field}", own, around[field]),
            ):
                condition = {"must": [{"key": name, "match": {"value": True}}]}
                what = f"{100 * share:g} % {what}"
                show(args.url, of, what, queries, neighbours(queries, known, matching), condition)


def show(url, of, what, queries, truth, condition=None):
    """A row for all targets."""
    cells = []
    for target in TARGETS:
        recall, shards, widened, every, _ = ask(url, of, queries, truth, {"recall_target": target}, condition)
        cells.append(f"{recall:.3f} ({shards:.2f}; {widened:.2f}, {every:.2f})")
    print(f"| {what} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
