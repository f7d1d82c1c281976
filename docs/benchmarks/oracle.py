#!/usr/bin/env python3
"""Is Vicinal's graph as good as hnswlib's? With the same M, ef_construction and ef, both over 32-bit floats, recall must
not differ by more than a point and the distances computed per query not by more than a tenth. No times are compared, so
other programs may run meanwhile. Ends with 1 when a row is outside, with 2 when there is nothing to compare."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile

import numpy as np

import compare
import sets

HNSWLIB = "hnswlib==0.8.0"
RECALL_APART = 0.01
RATIO_LEAST, RATIO_MOST = 0.9, 1.1


def flags():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders of data sets")
    parser.add_argument("--metric", choices=["l2", "cosine", "ip"], help="for all sets; else by their names")
    parser.add_argument("--m", type=int, default=16)
    parser.add_argument("--ef-construction", type=int, default=200)
    parser.add_argument("--ef", default="10,16,32,64,128", help="query beams, none below k")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--limit", type=int, help="use the first so many vectors only")
    parser.add_argument("--binary", type=pathlib.Path, default=compare.HERE.parent.parent / "target/release/vicinal")
    # What the shared parts of compare.py ask for besides.
    parser.set_defaults(repeat=1, build_threads=os.cpu_count(), core=min(os.sched_getaffinity(0)), timeout=7_200)
    return parser.parse_args()


def main():
    options = flags()
    # A bare name would be looked for among the system's commands.
    options.binary = options.binary.absolute()
    beams = sorted({int(ef) for ef in options.ef.split(",")})
    if beams[0] < options.k:
        raise Failed(f"--ef {beams[0]} is below --k {options.k}")
    print(f"{'set':<20} {'ef':>4} {'recall':>7} {'hnswlib':>8} {'distances':>10} {'hnswlib':>9} {'ratio':>6}")
    outside = 0
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        program = compiled(temporary)
        for folder in options.data:
            name = sets.name_of(folder)
            metric = options.metric or sets.metric_of(name)
            ours = vicinal(folder, metric, beams, options)
            theirs = hnswlib(program, folder, metric, beams, options, temporary)
            # Ours ends its sweep where nearly all neighbours are found.
            for ef, a in sorted(ours.items()):
                b = theirs[ef]
                ratio = a["distances"] / b["distances"]
                why = ["recall"] if abs(a["recall"] - b["recall"]) > RECALL_APART else []
                why += [] if RATIO_LEAST <= ratio <= RATIO_MOST else ["distances"]
                outside += bool(why)
                print(
                    f"{name:<20} {ef:>4} {a['recall']:>7.4f} {b['recall']:>8.4f} {a['distances']:>10.1f} "
                    f"{b['distances']:>9.1f} {ratio:>6.3f}  {'outside: ' + ', '.join(why) if why else 'alike'}",
                    flush=True,
                )
    return 1 if outside else 0


def compiled(temporary):
    """The program of oracle.cpp, with the headers of hnswlib's source package."""
    # Of this one package only: what its build asks for would be compiled as well otherwise, numpy among it.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "hnswlib", HNSWLIB]
    output_of([*pip, "--dest", temporary])
    with tarfile.open(next(temporary.glob("hnswlib-*.tar.gz"))) as package:
        package.extractall(temporary, filter="data")
    headers = next(temporary.glob("hnswlib-*/hnswlib")).parent
    output_of(["g++", "-O2", f"-I{headers}", compare.HERE / "oracle.cpp", "-o", temporary / "oracle", "-pthread"])
    return temporary / "oracle"


def hnswlib(program, folder, metric, beams, options, temporary):
    """The points of hnswlib by beam."""
    base = sets.vectors(folder, sets.BASE, metric, options.limit)
    truth = np.load(compare.neighbours_file(folder, metric, options, temporary)).astype(np.int32)
    files = [temporary / name for name in ("base", "queries", "neighbours")]
    for path, rows in zip(files, (base, sets.vectors(folder, sets.QUERIES, metric, options.queries), truth)):
        rows.tofile(path)
    numbers = [base.shape[1], options.k, options.m, options.ef_construction]
    lines = output_of([program, "l2" if metric == "l2" else "ip", *numbers, *files, *beams]).splitlines()
    return {line["ef"]: line for line in map(json.loads, lines)}


def vicinal(folder, metric, beams, options):
    """The points of `vicinal bench index` by beam."""
    params = f"--param m={options.m} --param ef_construction={options.ef_construction}"
    args = f"--family hnsw-f32 {params} --ef {','.join(map(str, beams))}"
    lines = compare.vicinal_lines(folder, metric, args, options)
    for line in lines:
        if "error" in line:
            raise Failed(f"vicinal bench index: {line['error']}")
        if "distances" not in line:
            raise Failed("`vicinal bench index --json` does not say how many `distances` it computed: it is too old")
    return {line["params"]["ef"]: line for line in lines}


class Failed(Exception):
    """There is nothing to compare, and why."""


def output_of(command):
    try:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    except OSError as error:
        raise Failed(str(error)) from None
    if done.returncode:
        raise Failed(f"{command[0]}: {compare.last_line(done.stderr) or compare.ended(done.returncode)}")
    return done.stdout


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (Failed, sets.BadSet, OSError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        sys.exit(2)
