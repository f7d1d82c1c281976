"""Routing by cluster, offline, in numpy: what `vicinal bench routing` should ask about as many shards as.

Written from the description of the algorithm alone and independent of the Rust code: k-means on a sample, fine centroids grouped
onto shards under a cap of 1.05 times the mean, copies of border points within a budget, shards asked by mass until a share of it
is reached. Searches inside a shard are exact, so recall is the share of the true neighbours that some asked shard holds. Prints the
same lines of JSON as `vicinal bench routing --json`, with "peer": "numpy".

By default mass comes from distances alone, as published rules have it; `--rank-power 1.5 --nearest 256` is Vicinal's rule.
"""

import argparse
import json
import time

import numpy as np
import sets

TARGETS = (0.90, 0.95, 0.99)
ROUNDS = 25
GROUP_ROUNDS = 40
SLACK = 1.05
TAU = 0.05


def lengths(a, b, metric):
    """Distances between all rows of a and of b, as lengths: chords of unit vectors for cosine."""
    dots = a @ b.T
    if metric == "cosine":
        return np.sqrt(np.maximum(2 - 2 * dots, 0))
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)[None, :] - 2 * dots
    return np.sqrt(np.maximum(squares, 0))


def blocks(rows, size=4096):
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def nearest(points, centroids, metric):
    out = np.empty(len(points), dtype=np.int64)
    bias = 0 if metric == "cosine" else 0.5 * (centroids * centroids).sum(1)
    for block in blocks(len(points)):
        out[block] = (points[block] @ centroids.T - bias).argmax(1)
    return out


def means(points, weights, owner, k, metric):
    sums = np.zeros((k, points.shape[1]))
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], np.arange(k))
    held = np.bincount(owner, minlength=k) > 0
    sums[held] = np.add.reduceat(points[order].astype(np.float64) * weights[order, None], starts[held])
    total = np.bincount(owner, weights, minlength=k)
    out = sums / np.maximum(total, 1e-12)[:, None]
    if metric == "cosine":
        out /= np.linalg.norm(out, axis=1, keepdims=True) + 1e-12
    return out.astype(np.float32), held


def kmeans(points, weights, k, metric, rng, rounds=ROUNDS):
    centroids = points[rng.choice(len(points), k, replace=False)].copy()
    owner = None
    for _ in range(rounds):
        before, owner = owner, nearest(points, centroids, metric)
        if before is not None and (before == owner).all():
            break
        centroids, held = means(points, weights, owner, k, metric)
        sizes = np.bincount(owner, weights, minlength=k)
        for empty in np.flatnonzero(~held):
            large = int(sizes.argmax())
            members = np.flatnonzero(owner == large)
            centroids[empty] = points[rng.choice(members)]
            sizes[empty] = sizes[large] = sizes[large] / 2
    return centroids


def group(centroids, sizes, shards, metric, rng):
    """The shard of each centroid: most to lose first, no shard above the cap."""
    cap = SLACK * sizes.sum() / shards
    centres = kmeans(centroids, np.maximum(sizes, 1e-3), shards, metric, rng)
    best, owner = (np.inf, None), None
    for _ in range(GROUP_ROUNDS):
        far = lengths(centroids, centres, metric)
        two = np.partition(far, 1, axis=1)
        order = np.argsort(-(two[:, 1] - two[:, 0]) * sizes, kind="stable")
        load, before, owner = np.zeros(shards), owner, np.zeros(len(centroids), dtype=np.int64)
        for c in order:
            choice = np.argsort(far[c], kind="stable")
            fits = choice[load[choice] + sizes[c] <= cap]
            owner[c] = fits[0] if len(fits) else load.argmin()
            load[owner[c]] += sizes[c]
        cost = (far[np.arange(len(owner)), owner] ** 2 * sizes).sum()
        if cost < best[0]:
            best = (cost, owner)
        if before is not None and (before == owner).all():
            break
        centres, _ = means(centroids, np.maximum(sizes, 1e-3), owner, shards, metric)
    return best[1]


def places(base, centroids, owner, metric):
    """Of each point: its shard, the nearest other shard, and how much farther that is."""
    home, other = np.empty(len(base), dtype=np.int64), np.empty(len(base), dtype=np.int64)
    ratio = np.empty(len(base))
    for block in blocks(len(base)):
        far = lengths(base[block], centroids, metric)
        first = far.argmin(1)
        home[block] = owner[first]
        near = far[np.arange(len(far)), first]
        far[owner[None, :] == home[block][:, None]] = np.inf
        second = far.argmin(1)
        other[block] = owner[second]
        ratio[block] = far[np.arange(len(far)), second] / np.maximum(near, 1e-12)
    return home, other, ratio


def ranked(queries, centroids, sizes, owner, shards, metric, tau, rank_power, count):
    """Shards by falling mass, that of the nearest centroid first, and the mass reached after each."""
    far = lengths(queries, centroids, metric)
    near = far.min(1, keepdims=True)
    weight = np.exp(-(far / np.maximum(near, 1e-12) - 1) / tau) * np.sqrt(sizes)[None, :]
    rank = far.argsort(1, kind="stable").argsort(1, kind="stable") + 1
    weight *= np.where(rank <= count, rank.astype(np.float64) ** -rank_power, 0)
    mass = np.stack([weight[:, owner == s].sum(1) for s in range(shards)], axis=1)
    mass /= mass.sum(1, keepdims=True)
    key = mass.copy()
    key[np.arange(len(key)), owner[far.argmin(1)]] += 2
    order = np.argsort(-key, axis=1, kind="stable")
    return order, np.cumsum(np.take_along_axis(mass, order, 1), axis=1)


def measure(order, reached, held, rows, theta):
    """Recall and shards of queries when shards are asked until theta of the mass is reached."""
    asked = np.minimum((reached < theta).sum(1) + 1, order.shape[1])
    chosen = np.arange(order.shape[1])[None, :] < asked[:, None]
    bits = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(bits, order, chosen, 1)
    found = (held & bits[:, None, :]).any(2)
    return found.mean(), asked, (bits * rows[None, :]).sum(1).mean()


def theta_for(target, *of):
    """The smallest theta that reaches a recall."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        if measure(*of, middle)[0] >= target:
            high = middle
        else:
            low = middle
    return high


def run(folder, shard_counts, copies, k, query_count, per_shard, mass_rule, seed):
    name = sets.name_of(folder)
    metric = sets.metric_of(name)
    base = sets.vectors(folder, sets.BASE, metric, None)
    queries = sets.vectors(folder, sets.QUERIES, metric, query_count)
    truth = sets.listed_neighbours(folder, len(queries), k)
    if truth is None:
        truth = sets.exact_neighbours(base, queries, metric, k)
    for shards in shard_counts:
        rng = np.random.default_rng(seed)
        started = time.time()
        k_fine = min(max(1024, per_shard * shards), max(shards, len(base) // 16))
        sample = base[np.sort(rng.choice(len(base), min(len(base), 256 * k_fine), replace=False))]
        centroids = kmeans(sample, np.ones(len(sample)), k_fine, metric, rng)
        sizes = np.bincount(nearest(base, centroids, metric), minlength=k_fine).astype(np.float64)
        owner = group(centroids, sizes, shards, metric, rng)
        train_s = time.time() - started
        home, other, ratio = places(base, centroids, owner, metric)
        started = time.time()
        order, reached = ranked(queries, centroids, sizes, owner, shards, metric, *mass_rule)
        route_us = (time.time() - started) / len(queries) * 1e6
        loads = np.bincount(home, minlength=shards)
        for budget in copies:
            copied = np.zeros(len(base), dtype=bool)
            copied[np.argsort(ratio, kind="stable")[: int(budget * len(base))]] = True
            rows = loads + np.bincount(other[copied], minlength=shards)
            held = home[truth][:, :, None] == np.arange(shards)
            held |= (other[truth][:, :, None] == np.arange(shards)) & copied[truth][:, :, None]
            fit, test = slice(0, None, 2), slice(1, None, 2)
            for target in TARGETS:
                theta = theta_for(target, order[fit], reached[fit], held[fit], rows)
                recall, asked, scanned = measure(order[test], reached[test], held[test], rows, theta)
                line = {
                    "peer": "numpy" if mass_rule[1] == 0 else "numpy, by rank",
                    "dataset": name,
                    "n": len(base),
                    "dim": base.shape[1],
                    "metric": metric,
                    "k": k,
                    "centroids": k_fine,
                    "shards": shards,
                    "copies": budget,
                    "copied": float(copied.mean()),
                    "target": target,
                    "theta": float(theta),
                    "recall": float(recall),
                    "shards_mean": float(asked.mean()),
                    "shards_p95": int(np.sort(asked)[int(np.ceil(0.95 * len(asked))) - 1]),
                    "imbalance": float(loads.max() / loads.mean()),
                    "distances": float(scanned + k_fine),
                    "train_s": train_s,
                    "route_us": route_us,
                }
                print(json.dumps(line), flush=True)


def numbers(kind):
    return lambda text: [kind(part) for part in text.split(",")]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="directory of the data set")
    parser.add_argument("--shards", type=numbers(int), default=[8, 16, 32])
    parser.add_argument("--copies", type=numbers(float), default=[0.0, 0.2, 0.5])
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--centroids-per-shard", type=int, default=64)
    parser.add_argument("--tau", type=float, default=TAU)
    parser.add_argument("--rank-power", type=float, default=0.0, help="mass falls with the rank to this power")
    parser.add_argument("--nearest", type=int, default=1 << 30, help="only so many centroids give mass")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rule = (args.tau, args.rank_power, args.nearest)
    run(args.data, args.shards, args.copies, args.k, args.queries, args.centroids_per_shard, rule, args.seed)
