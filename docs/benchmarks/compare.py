#!/usr/bin/env python3
"""Measures Vicinal's vector indexes beside other libraries: one command, one machine, the same data and queries.

Each contender is built in a process of its own on all cores, then searched on one core. Vicinal runs before and after
all others and each of its runs has half of the rounds, so that a machine that warms up or slows down favours nobody;
the best round of each point counts. A contender that cannot run is listed with the reason. See README.md beside this file.
"""

import argparse
import contextlib
import datetime
import gc
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import report

WARM_UP = 100
RECALL_ENOUGH = 0.9995


def flags():
    known = "hnswlib, faiss-hnsw, faiss-hnsw-sq8, faiss-flat, usearch-f32, usearch-i8, scann, glass-sq8, glass-fp32, annoy"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", metavar="DIR", help="folders of data sets; the folder's name is the set's")
    parser.add_argument("--metric", choices=["l2", "cosine", "ip", "l1"], help="for all sets; else by their names")
    parser.add_argument("--peers", metavar="A,B", help=f"by default all: {known}; `none`: Vicinal alone")
    parser.add_argument(
        "--vicinal-args",
        action="append",
        metavar="ARGS",
        help="arguments of `vicinal bench index`, such as '--family hnsw --param m=32'; may be repeated",
    )
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=2_000)
    parser.add_argument("--limit", type=int, help="use the first so many vectors only")
    parser.add_argument("--repeat", type=int, default=3, help="rounds of a run of Vicinal; the others have twice")
    parser.add_argument("--passes", type=int, default=1, help="times that everything is built and measured anew")
    parser.add_argument("--build-threads", type=int, default=os.cpu_count())
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="that searches are bound to")
    parser.add_argument("--timeout", type=float, default=7_200, help="seconds for one process")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="folder of results.jsonl, results.md, pictures")
    parser.add_argument("--plot", default="svg,png", help="kinds of pictures, or `none`")
    parser.add_argument("--binary", type=pathlib.Path, default=HERE.parent.parent / "target" / "release" / "vicinal")
    parser.add_argument("--report-only", action="store_true", help="write table and pictures anew from results.jsonl")
    parser.add_argument("--self-test", action="store_true", help="test this program and leave")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def main():
    parser = flags()
    options = parser.parse_args()
    if options.child:
        return child(json.loads(options.child))
    if options.self_test:
        import selftest

        return selftest.run()
    options.out.mkdir(parents=True, exist_ok=True)
    results = options.out / "results.jsonl"
    if not options.report_only:
        if not options.data:
            parser.error("--data says what to measure with")
        if min(options.k, options.queries, options.repeat, options.passes, options.build_threads) < 1:
            parser.error("--k, --queries, --repeat, --passes and --build-threads must be 1 or larger")
        measure(options, results)
    write_report(options, results)


def measure(options, results):
    """Runs all contenders on all data sets and appends their lines to a fresh file."""
    import contenders

    peers = list(contenders.CONTENDERS) if options.peers is None else options.peers.split(",")
    peers = [] if peers == ["none"] else peers
    with results.open("w") as out:

        def write(line):
            out.write(json.dumps(line) + "\n")
            out.flush()

        write({"machine": machine(), "date": datetime.date.today().isoformat(), "passes": options.passes})
        for folder in options.data:
            with tempfile.TemporaryDirectory() as temporary:
                compare_on(folder, peers, options, pathlib.Path(temporary), write)


def compare_on(folder, peers, options, temporary, write):
    import contenders
    import sets

    name = sets.name_of(folder)
    metric = options.metric or sets.metric_of(name)
    try:
        truth = neighbours_file(folder, metric, options, temporary)
    except (sets.BadSet, OSError, ValueError) as error:
        write({"peer": "all", "dataset": name, "error": str(error)})
        return say(f"{name}: {error}")

    def run(peer, start):
        say(f"{name}: {peer} ...", end=" ")
        began = time.time()
        lines = start()
        for line in lines:
            write({**line, "dataset": name})
        failed = [line["error"] for line in lines if "error" in line]
        say(f"not run: {failed[0]}" if failed else f"{len(lines)} points in {time.time() - began:.0f} s")

    def vicinal():
        for args in options.vicinal_args or ["--family hnsw"]:
            run(f"vicinal {args}", lambda args=args: vicinal_lines(folder, metric, args, options))

    for _ in range(options.passes):
        vicinal()
        for peer in peers:
            known = contenders.CONTENDERS.get(peer)
            for config in known.configs if known else [None]:
                job = {
                    "peer": peer,
                    "config": config,
                    "data": str(folder),
                    "metric": metric,
                    "truth": str(truth),
                    "k": options.k,
                    "queries": options.queries,
                    "limit": options.limit,
                    "rounds": 2 * options.repeat,
                    "build_threads": options.build_threads,
                    "core": options.core,
                    "out": str(temporary / "lines.jsonl"),
                }
                run(f"{peer} {config or ''}", lambda job=job: peer_lines(job, options.timeout))
        # Without others there is nothing between two runs.
        if peers:
            vicinal()


def neighbours_file(folder, metric, options, temporary):
    """The exact neighbours of the queries in a file that every contender's process reads."""
    import numpy as np
    import sets

    queries = sets.vectors(folder, sets.QUERIES, metric, options.queries)
    rows = None if options.limit else sets.listed_neighbours(folder, len(queries), options.k)
    if rows is None:
        say(f"{sets.name_of(folder)}: computing the exact neighbours")
        rows = sets.exact_neighbours(sets.vectors(folder, sets.BASE, metric, options.limit), queries, metric, options.k)
    np.save(temporary / "truth.npy", rows)
    return temporary / "truth.npy"


def vicinal_lines(folder, metric, args, options):
    """The lines of one run of `vicinal bench index`."""
    words = shlex.split(args)
    family = words[words.index("--family") + 1] if "--family" in words[:-1] else "hnsw"
    failed = {"peer": f"vicinal-{family}", "params": {}}
    if not options.binary.exists():
        why = f"there is no {options.binary.name} binary; cargo build --release, or say --binary"
        return [{**failed, "error": why}]
    command = [options.binary, "bench", "index", "--json", "--data", folder, "--metric", metric]
    numbers = {"k": options.k, "queries": options.queries, "repeat": options.repeat}
    numbers |= {"build-threads": options.build_threads, "pin": options.core}
    if options.limit:
        numbers["limit"] = options.limit
    for flag, value in numbers.items():
        command += [f"--{flag}", str(value)]
    try:
        done = subprocess.run(command + words, capture_output=True, text=True, timeout=options.timeout)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [{**failed, "error": reason(error, options.timeout)}]
    if done.returncode:
        return [{**failed, "error": last_line(done.stderr) or ended(done.returncode)}]
    version = subprocess.run([options.binary, "--version"], capture_output=True, text=True).stdout.split()[-1:]
    return [{**json.loads(line), "version": "".join(version)} for line in done.stdout.splitlines()]


def peer_lines(job, timeout):
    """The lines of one contender in one configuration, measured in a process of its own."""
    failed = {"peer": job["peer"], "params": job["config"] or {}}
    pathlib.Path(job["out"]).write_text("")
    # Libraries are told their threads; what they do besides (BLAS) must not take more.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **threads}
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired as error:
        return [{**failed, "error": reason(error, timeout)}]
    # What libraries print goes to the standard output, the lines to a file.
    lines = [json.loads(line) for line in pathlib.Path(job["out"]).read_text().splitlines()]
    if done.returncode:
        lines.append({**failed, "error": last_line(done.stderr) or ended(done.returncode)})
    elif not lines:
        lines.append({**failed, "error": "it gave no point"})
    return lines


def child(job):
    """Builds one contender, measures its points, appends their lines to the job's file."""
    import numpy as np
    import psutil

    import contenders
    import sets

    def write(line):
        with open(job["out"], "a") as out:
            out.write(json.dumps(line) + "\n")

    known = contenders.CONTENDERS.get(job["peer"])
    if known is None:
        return write({"peer": job["peer"], "params": {}, "error": "this program does not know it"})
    base = sets.vectors(job["data"], sets.BASE, job["metric"], job["limit"])
    queries = sets.vectors(job["data"], sets.QUERIES, job["metric"], job["queries"])
    truth = np.load(job["truth"])
    common = {"peer": job["peer"], "n": len(base), "dim": base.shape[1], "metric": job["metric"], "k": job["k"]}
    try:
        version = importlib.metadata.version(known.package)
        # Once for nothing, so that the import and its libraries count neither as memory nor as build time.
        known.build(job["config"], base[:1_000].copy(), job["metric"], job["build_threads"])
        gc.collect()
        process = psutil.Process()
        before, began = process.memory_info().rss, time.time()
        params, points, prepare = known.build(job["config"], base, job["metric"], job["build_threads"])
        build_s, index_mb = time.time() - began, (process.memory_info().rss - before) / 1e6
        bind_all_threads(job["core"])
        queries = prepare(queries) if prepare else queries
        for more, search in points:
            search(queries[:WARM_UP], job["k"])
            best, found = float("inf"), None
            for _ in range(job["rounds"]):
                began = time.perf_counter()
                found = search(queries, job["k"])
                best = min(best, time.perf_counter() - began)
            hits = sum(len(set(map(int, rows)) & set(map(int, exact))) for rows, exact in zip(found, truth))
            recall = hits / truth.size
            write(
                {
                    **common,
                    "params": {**params, **more},
                    "build_s": round(build_s, 2),
                    "index_mb": round(index_mb, 1),
                    "recall": round(recall, 4),
                    "qps": round(len(queries) / best, 1),
                    "us_per_query": round(best / len(queries) * 1e6, 1),
                    "build_threads": job["build_threads"],
                    "search_threads": 1,
                    "version": version,
                }
            )
            if recall > RECALL_ENOUGH:
                break
    except importlib.metadata.PackageNotFoundError:
        write({**common, "params": job["config"], "error": f"the package {known.package} is not installed"})
    except contenders.Unfit as error:
        write({**common, "params": job["config"], "error": f"it has {error}"})
    except Exception as error:  # Whatever a library raises is its reason.
        write({**common, "params": job["config"], "error": f"{type(error).__name__}: {error}"[:300]})


def bind_all_threads(core):
    """Threads that the build left behind must not search on other cores."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in pathlib.Path("/proc/self/task").iterdir():
        # One of a pool that is being taken down may have ended since it was listed.
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


def write_report(options, results):
    """Table and pictures from the lines of a run."""
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    about = next((f"{line['machine']}; {line['date']}." for line in lines if "machine" in line), "")
    kinds = [] if options.plot == "none" else options.plot.split(",")
    sets_of = {}
    for line in lines:
        if "dataset" in line:
            sets_of.setdefault(line["dataset"], []).append(line)
    drawn = {}
    for name, of_set in sets_of.items():
        points = [line for line in of_set if "error" not in line]
        files = [options.out / f"{name}.{kind}" for kind in kinds]
        if points and files:
            report.plot(name, points, files)
        drawn[name] = (of_set, files[0].name if points and files else None)
    (options.out / "results.md").write_text(report.markdown(drawn, about))
    for name, (of_set, _) in drawn.items():
        say(f"\n{name}\n{report.table(of_set)}")


def machine():
    """The processor, as it names itself, and how many of them."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as info:
            model = next(line.split(":", 1)[1].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{model}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"


def reason(error, timeout):
    return f"not done after {timeout:.0f} s" if isinstance(error, subprocess.TimeoutExpired) else str(error)


def ended(code):
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with {code}"


def last_line(text):
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def say(text, end="\n"):
    print(text, end=end, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
