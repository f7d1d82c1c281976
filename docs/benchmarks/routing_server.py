#!/usr/bin/env python3
"""Recall and search shards asked of a server whose collection is routed by cluster: queries one after the other.

Creates the collection `routing_bench` anew. The neighbours are computed here, so `--limit` may be any number.
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
PARAMS = [{"recall_target": target} for target in (0.9, 0.95, 0.98, 0.99)]
PARAMS += [{"nprobe_shards": 1}, {"routing": "all"}, {"routing": "homes"}]


def call(url, method, path, body=None):
    """The answer's body and headers; what is not answered with 200 ends the run."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, method=method, data=data, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read()), answer.headers
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from error


def main():
    """Loads, waits, asks, prints a row of a table per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://localhost:6333")
    parser.add_argument("--data", type=Path, required=True, help="directory with base.npy and query.npy, cosine")
    parser.add_argument("--limit", type=int, default=100_000, help="vectors loaded")
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--search-shards", type=int, default=8)
    args = parser.parse_args()
    base = np.load(args.data / "base.npy", mmap_mode="r")[: args.limit].astype("f4")
    queries = np.load(args.data / "query.npy")[: args.queries].astype("f4")
    of = "/collections/routing_bench"
    call(args.url, "DELETE", of)
    routing = {"method": "cluster", "search_shards": args.search_shards, "from_points": len(base)}
    vectors = {"size": base.shape[1], "distance": "Cosine"}
    call(args.url, "PUT", of, {"vectors": vectors, "shard_number": 2, "routing": routing})
    for first in range(0, len(base), BATCH):
        points = [{"id": first + i, "vector": row.tolist()} for i, row in enumerate(base[first : first + BATCH])]
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
    unit = base / np.linalg.norm(base, axis=1, keepdims=True)
    scores = (queries / np.linalg.norm(queries, axis=1, keepdims=True)) @ unit.T
    truth = np.argpartition(-scores, K, axis=1)[:, :K]
    print("| asked for | recall@10 | search shards asked | p50 ms |\n|---|---:|---:|---:|")
    for params in PARAMS:
        found, shards, times = 0, 0, []
        for query, right in zip(queries, truth):
            body = {"query": query.tolist(), "limit": K, "params": params}
            begun = time.time()
            answer, headers = call(args.url, "POST", f"{of}/points/query", body)
            times.append(time.time() - begun)
            found += len({hit["id"] for hit in answer["result"]["points"]} & set(right.tolist()))
            shards += json.loads(headers.get("x-vicinal-routing", "{}")).get("search_shards_asked", 0)
        count = len(queries)
        what = ", ".join(f"`{name}: {value}`" for name, value in params.items())
        print(f"| {what} | {found / count / K:.4f} | {shards / count:.2f} | {1e3 * sorted(times)[count // 2]:.1f} |")


if __name__ == "__main__":
    main()
