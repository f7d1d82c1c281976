"""From measured points to a table and a picture: Pareto frontiers, interpolated speeds, Markdown, plots."""

import math
import statistics

RECALLS = (0.90, 0.95, 0.99)
REFERENCE = "hnswlib"
# Parameters of a search; all others are of the index.
SEARCH_KEYS = ("ef", "nprobe", "search_k", "searched", "reordered")


def key_of(point):
    return (point["peer"], tuple(sorted((k, str(v)) for k, v in point["params"].items())))


def best_of_each(points):
    """The fastest measurement of each point, with the shortest build of its configuration."""
    best = {}
    for point in points:
        known = best.get(key_of(point))
        if known is None or point["qps"] > known["qps"]:
            best[key_of(point)] = point
    return list(best.values())


def frontier(points):
    """The points that no other beats in both recall and speed, by rising recall."""
    kept, fastest = [], 0.0
    for point in sorted(points, key=lambda p: (-p["recall"], -p["qps"])):
        if point["qps"] > fastest:
            kept.append(point)
            fastest = point["qps"]
    return kept[::-1]


def qps_at(points, recall):
    """Speed at a recall: log(qps) is linear in recall between neighbours on the frontier; None when out of reach."""
    edge = frontier(points)
    if not edge or edge[-1]["recall"] < recall:
        return None
    if edge[0]["recall"] >= recall:
        return edge[0]["qps"]
    for low, high in zip(edge, edge[1:]):
        if low["recall"] <= recall <= high["recall"]:
            part = (recall - low["recall"]) / (high["recall"] - low["recall"])
            return math.exp((1 - part) * math.log(low["qps"]) + part * math.log(high["qps"]))
    return None


def serving(points, recall=0.95):
    """The point whose index one would build for a recall: the fastest that reaches it, else the most accurate."""
    edge = frontier(points)
    return next((point for point in edge if point["recall"] >= recall), edge[-1])


def build_of(point):
    """The part of its parameters that an index was built with."""
    of_index = {key: value for key, value in point["params"].items() if value and key not in SEARCH_KEYS}
    return ", ".join(f"{key} {value}" for key, value in of_index.items()) or "-"


def drift(lines):
    """Median difference of Vicinal's runs at the same point: how much the machine changed during the comparison."""
    speeds = {}
    for line in lines:
        if line["peer"].startswith("vicinal"):
            speeds.setdefault(key_of(line), []).append(line["qps"])
    ratios = [max(s) / min(s) - 1 for s in speeds.values() if len(s) > 1]
    return statistics.median(ratios) if ratios else None


def by_peer(lines):
    peers = {}
    for point in best_of_each(lines):
        peers.setdefault(point["peer"], []).append(point)
    return peers


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def order(peers):
    """Fastest at recall 0.95 first."""
    return sorted(peers, key=lambda name: -(qps_at(peers[name], 0.95) or 0))


def table(lines):
    """The Markdown of one data set: `lines` are its points and its contenders that did not run."""
    peers = by_peer([line for line in lines if "error" not in line])
    reference = peers.get(REFERENCE, [])
    speeds = " | ".join(f"QPS at {recall:.2f}" for recall in RECALLS)
    out = [
        f"| index | {speeds} | build s | MB | built with | version |",
        "|---|" + "---:|" * (len(RECALLS) + 2) + "---|---|",
    ]
    for name in order(peers):
        cells = []
        for recall in RECALLS:
            speed, compared = qps_at(peers[name], recall), qps_at(reference, recall)
            ratio = f" ({speed / compared:.2f}x)" if speed and compared else ""
            cells.append(number(speed) + ratio)
        point = serving(peers[name])
        cells += [f"{point['build_s']:.1f}", number(point["index_mb"]), build_of(point), point.get("version") or "-"]
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    failed = {(line["peer"], line["error"]) for line in lines if "error" in line}
    for name, why in sorted(failed):
        why = " ".join(why.split()).replace("|", "/")
        out.append(f"| {name} | not run: {why} |" + " |" * (len(RECALLS) + 3))
    return "\n".join(out)


def markdown(sets, about):
    """All data sets. `sets` maps a name to its lines and the file name of its picture (None: no picture)."""
    out = [
        "# Vicinal beside other libraries",
        "",
        about,
        "",
        "Searches on one core, all queries handed over in one call where the library takes them (a library may then share",
        "work among them, as Faiss's flat scan does; Vicinal and Annoy are asked one by one). The best of several rounds",
        "counts. QPS at a recall is read off the Pareto frontier of all points of an index, log(QPS) linear in recall between",
        f"two of them; `-` is out of reach. In brackets the ratio to {REFERENCE}. Build time and memory (growth of the process,",
        "vectors included) are those of the index that reaches recall 0.95 fastest.",
    ]
    for name, (lines, picture) in sets.items():
        points = [line for line in lines if "error" not in line]
        if points:
            first = points[0]
            head = f"{name}: {first['n']:,} x {first['dim']}, {first['metric']}, recall@{first['k']}"
            threads = sorted({point["build_threads"] for point in points if "build_threads" in point})
            note = f"Built on {', '.join(map(str, threads))} threads." if threads else ""
            changed = drift(points)
            if changed is not None:
                note += f" Vicinal's own runs at the beginning and the end differ by {changed:.1%} (median)."
        else:
            head, note = name, "Nothing ran."
        out += ["", f"## {head}", "", note.strip(), "", table(lines)]
        if picture:
            out += ["", f"![Recall and QPS on {name}]({picture})"]
    return "\n".join(out) + "\n"


def save_svg(figure, file):
    """Writes a picture that is the same file each time, without blanks at the ends of lines."""
    figure.savefig(file, metadata={"Date": None})
    text = file.read_text()
    file.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def plot(name, lines, files):
    """Draws the frontiers of one data set into each of `files`."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    # The same picture gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "vicinal"
    from matplotlib import pyplot
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

    peers = by_peer(lines)
    edges = {peer: frontier(points) for peer, points in peers.items()}
    low = min(max(0.8, min(point["recall"] for edge in edges.values() for point in edge)), 0.98)
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    colours, marks, ours, others = pyplot.get_cmap("tab10").colors, "osD^v<>pXh", 0, 0
    for peer in order(peers):
        xs, ys = [[point[key] for point in edges[peer]] for key in ("recall", "qps")]
        if peer.startswith("vicinal"):
            style = {"color": "black", "linestyle": ("-", "--", ":", "-.")[ours % 4], "marker": "osD^"[ours % 4]}
            axes.plot(xs, ys, **style, markersize=5, linewidth=2.4, label=peer, zorder=3)
            ours += 1
        else:
            style = {"color": colours[others % len(colours)], "marker": marks[others % len(marks)]}
            axes.plot(xs, ys, **style, markersize=4, linewidth=1.3, label=peer)
            others += 1
    axes.set_yscale("log")
    # The last percent is what is hard: recall by the logarithm of what is missing, cut off where sweeps end.
    least = 5e-4
    axes.set_xscale(
        "function",
        functions=(
            lambda recall: -np.log10(np.maximum(1 + least - recall, 1e-9)),
            lambda value: 1 + least - np.power(10.0, -value),
        ),
    )
    ticks = [tick for tick in (0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1.0) if tick >= low]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3f}".rstrip("0").ljust(3, "0")))
    axes.set_xlim(low - (1 - low) * 0.05, 1 + least / 8)
    seen = [point["qps"] for edge in edges.values() for point in edge if point["recall"] >= low]
    axes.set_ylim(min(seen) / 1.3, max(seen) * 1.3)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    first = next(iter(lines))
    axes.set_xlabel(f"recall@{first['k']}")
    axes.set_ylabel("queries per second, one core")
    axes.set_title(f"{name}: {first['n']:,} x {first['dim']}, {first['metric']}")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    for file in files:
        if file.suffix == ".svg":
            save_svg(figure, file)
        else:
            figure.savefig(file, dpi=130)
    pyplot.close(figure)
