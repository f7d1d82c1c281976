"""Draws what `vicinal bench routing --json` and `routing_reference.py` print: recall and shards asked, a picture for each set.

    routing_plot.py --lines ours.jsonl reference.jsonl --out docs/benchmarks

Needs matplotlib. A line of the picture is a number of shards and a budget of copies; points are at the measured recall.
"""

import argparse
import json
import pathlib

from report import save_svg

COLOURS = {8: "tab:blue", 16: "tab:orange", 32: "tab:green"}
STYLES = {0.0: "-", 0.2: "--", 0.5: ":"}


def read(paths):
    """Measured points by set, without those that ask everything."""
    sets = {}
    for path in paths:
        for text in pathlib.Path(path).read_text().splitlines():
            line = json.loads(text)
            if line["target"] < 1:
                sets.setdefault(line["dataset"], []).append(line)
    return sets


def plot(name, lines, file):
    import matplotlib

    matplotlib.use("Agg")
    # The same picture gives the same file.
    matplotlib.rcParams["svg.hashsalt"] = "vicinal"
    from matplotlib import pyplot

    curves = {}
    for line in lines:
        curves.setdefault((line["peer"], line["shards"], line["copies"]), []).append(line)
    figure, axes = pyplot.subplots(figsize=(9, 5.5), layout="constrained")
    for (peer, shards, copies), points in sorted(curves.items()):
        points.sort(key=lambda point: point["recall"])
        ours = peer == "vicinal"
        axes.plot(
            [point["recall"] for point in points],
            [point["shards_mean"] for point in points],
            color=COLOURS.get(shards, "tab:grey"),
            linestyle=STYLES.get(copies, "-."),
            marker="o" if ours else None,
            markersize=5,
            linewidth=2.2 if ours else 1,
            alpha=1 if ours else 0.5,
            label=f"{peer}: {shards} shards, {copies:.0%} copies",
        )
    first = lines[0]
    axes.set_xlabel(f"recall@{first['k']} with exact search in the shards asked")
    axes.set_ylabel("shards asked, mean")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_title(f"{name}: {first['n']:,} x {first['dim']}, {first['metric']}")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
    save_svg(figure, file)
    pyplot.close(figure)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", nargs="+", required=True, help="files of JSON lines")
    parser.add_argument("--out", default="docs/benchmarks", help="folder of the pictures")
    args = parser.parse_args()
    for name, lines in read(args.lines).items():
        plot(name, lines, pathlib.Path(args.out) / f"routing-{name}.svg")
