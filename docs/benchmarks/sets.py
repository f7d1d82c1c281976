"""Data sets on disk: vectors, queries and exact neighbours, as .npy or as .fvecs/.bvecs/.ivecs files."""

import pathlib

import numpy as np

BASE = ["base.npy", "base_u8.npy", "base.fvecs", "base.bvecs", "*_base.fvecs", "*_base.bvecs"]
QUERIES = ["query.npy", "query_u8.npy", "query.fvecs", "query.bvecs", "*_query.fvecs", "*_query.bvecs"]
TRUTH = ["gt.npy", "gt.ivecs", "groundtruth.ivecs", "*_groundtruth.ivecs"]


class BadSet(Exception):
    """A data set that cannot be used, and why."""


def name_of(folder):
    return pathlib.Path(folder).resolve().name


def metric_of(name):
    """The usual metric of a well-known set, l2 for all others; `vicinal bench index` has the same rule."""
    if name.startswith("twotower"):
        return "ip"
    if name.endswith("-angular") or name.startswith("minilm"):
        return "cosine"
    return "l2"


def find(folder, names):
    """The first file of these names, None without one."""
    for name in names:
        found = sorted(pathlib.Path(folder).glob(name))
        if len(found) > 1:
            raise BadSet(f"{folder} holds {len(found)} files of the form {name}")
        if found:
            return found[0]
    return None


def read(path, rows):
    """At most `rows` rows of a file (None: all), in the type they are stored in."""
    if path.suffix == ".npy":
        values = np.load(path, mmap_mode="r")
    else:
        kind = {".fvecs": np.dtype("<f4"), ".bvecs": np.dtype("u1"), ".ivecs": np.dtype("<i4")}[path.suffix]
        columns = int(np.fromfile(path, dtype="<i4", count=1)[0])
        row = np.dtype([("columns", "<i4"), ("values", kind, (columns,))])
        if columns < 1 or path.stat().st_size % row.itemsize:
            raise BadSet(f"{path}: no whole number of rows of {columns} values")
        records = np.memmap(path, dtype=row, mode="r")
        if not (records["columns"] == columns).all():
            raise BadSet(f"{path}: rows of different lengths")
        values = records["values"]
    if values.ndim != 2:
        raise BadSet(f"{path}: {values.ndim} dimensions instead of 2")
    return values[:rows]


def vectors(folder, names, metric, rows):
    """Vectors as 32-bit floats, of unit length for cosine."""
    path = find(folder, names)
    if path is None:
        raise BadSet(f"{folder} holds none of {', '.join(names)}")
    values = np.array(read(path, rows), dtype=np.float32, order="C")
    if metric == "cosine":
        values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-12
    return values


def listed_neighbours(folder, queries, k):
    """The exact neighbours that the set comes with, None without them."""
    path = find(folder, TRUTH)
    if path is None:
        return None
    rows = np.array(read(path, queries))
    if rows.shape[0] < queries or rows.shape[1] < k:
        raise BadSet(f"{path}: {rows.shape[0]} x {rows.shape[1]} neighbours for {queries} queries and k {k}")
    return rows[:, :k]


def exact_neighbours(base, queries, metric, k):
    """Computed: candidates by matrix products, their order by sums of 64 bits."""
    k = min(k, len(base))
    wanted = min(k + 40, len(base))
    norms = (base * base).sum(axis=1)
    answers = []
    for vector in queries:
        if metric == "l1":
            parts = np.array_split(base, max(1, len(base) >> 14))
            near = np.concatenate([np.abs(part - vector).sum(axis=1) for part in parts])
        else:
            near = -(base @ vector) if metric != "l2" else norms - 2 * (base @ vector)
        rows = np.argpartition(near, wanted - 1)[:wanted]
        rows.sort()
        candidates, vector = base[rows].astype(np.float64), vector.astype(np.float64)
        if metric == "l2":
            exact = ((candidates - vector) ** 2).sum(axis=1)
        elif metric == "l1":
            exact = np.abs(candidates - vector).sum(axis=1)
        else:
            exact = -(candidates @ vector)
        answers.append(rows[np.argsort(exact, kind="stable")[:k]])
    return np.array(answers, dtype=np.int32)
