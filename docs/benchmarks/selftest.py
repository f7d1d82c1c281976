"""Tests of the comparison's own arithmetic and readers: `compare.py --self-test`."""

import math
import pathlib
import tempfile
import unittest

import numpy as np

import compare
import report
import sets


def point(recall, qps, peer="a", **params):
    return {"peer": peer, "recall": recall, "qps": qps, "params": params, "build_s": 1.0, "index_mb": 2.0, "k": 10}


class Frontier(unittest.TestCase):
    def test_beaten_points_are_left_out(self):
        points = [point(0.9, 100), point(0.95, 120), point(0.99, 50), point(0.99, 40), point(0.8, 110)]
        self.assertEqual([(p["recall"], p["qps"]) for p in report.frontier(points)], [(0.95, 120), (0.99, 50)])

    def test_log_qps_is_linear_in_recall(self):
        points = [point(0.9, 1000), point(0.96, 10)]
        self.assertAlmostEqual(report.qps_at(points, 0.93), 100)
        self.assertAlmostEqual(report.qps_at(points, 0.92), math.exp(math.log(1000) * 2 / 3 + math.log(10) / 3))
        self.assertEqual(report.qps_at(points, 0.9), 1000)
        self.assertAlmostEqual(report.qps_at(points, 0.96), 10)

    def test_outside_of_the_points(self):
        points = [point(0.9, 1000), point(0.96, 10)]
        self.assertEqual(report.qps_at(points, 0.5), 1000)
        self.assertIsNone(report.qps_at(points, 0.97))
        self.assertIsNone(report.qps_at([], 0.9))

    def test_the_best_run_of_a_point_counts(self):
        points = [point(0.9, 10, ef=1), point(0.9, 30, ef=1), point(0.9, 20, ef=1), point(0.8, 5, ef=2)]
        self.assertEqual(sorted(p["qps"] for p in report.best_of_each(points)), [5, 30])

    def test_drift_is_of_vicinal_alone(self):
        lines = [point(0.9, qps, "vicinal-hnsw", ef=1) for qps in (100, 110)] + [point(0.9, 1), point(0.9, 9)]
        self.assertAlmostEqual(report.drift(lines), 0.1)
        self.assertIsNone(report.drift(lines[2:]))


class Table(unittest.TestCase):
    def test_ratios_and_reasons(self):
        lines = [point(0.96, 100, "hnswlib", M=16), point(0.97, 250, "vicinal-hnsw", m=8)]
        lines.append({"peer": "scann", "params": {}, "error": "no | wheel"})
        text = report.table(lines).splitlines()
        self.assertIn("| vicinal-hnsw | 250 (2.50x) | 250 (2.50x) | - | 1.0 | 2.0 | m 8 | - |", text[2])
        self.assertIn("| hnswlib | 100 (1.00x)", text[3])
        self.assertTrue(text[4].startswith("| scann | not run: no / wheel |"))
        self.assertEqual({line.count("|") for line in text}, {text[0].count("|")})


class Sets(unittest.TestCase):
    def test_metrics_of_well_known_sets(self):
        names = {"fashion-mnist": "l2", "glove-100-angular": "cosine", "minilm-384": "cosine"}
        names |= {"twotower-128": "ip", "sift": "l2"}
        self.assertEqual({name: sets.metric_of(name) for name in names}, names)

    def test_texmex_files(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "x_base.fvecs"
            rows = np.array([(2, (1.5, -2.0)), (2, (0.0, 4.0))], dtype=[("n", "<i4"), ("v", "<f4", (2,))])
            rows.tofile(path)
            self.assertEqual(sets.find(folder, sets.BASE), path)
            self.assertEqual(sets.vectors(folder, sets.BASE, "l2", None).tolist(), [[1.5, -2.0], [0.0, 4.0]])
            self.assertEqual(sets.vectors(folder, sets.BASE, "cosine", None)[1].tolist(), [0.0, 1.0])
            path.write_bytes(path.read_bytes()[:-1])
            self.assertRaises(sets.BadSet, sets.vectors, folder, sets.BASE, "l2", None)
            self.assertRaises(sets.BadSet, sets.vectors, folder, sets.QUERIES, "l2", None)

    def test_exact_neighbours(self):
        base = np.array([[0.0], [1.0], [2.0], [10.0]], dtype=np.float32)
        queries = np.array([[1.2], [9.0]], dtype=np.float32)
        self.assertEqual(sets.exact_neighbours(base, queries, "l2", 2).tolist(), [[1, 2], [3, 2]])
        self.assertEqual(sets.exact_neighbours(base, queries, "l1", 2).tolist(), [[1, 2], [3, 2]])
        self.assertEqual(sets.exact_neighbours(base, queries, "ip", 2).tolist(), [[3, 2], [3, 2]])


class Processes(unittest.TestCase):
    def test_an_unknown_peer_is_reported(self):
        with tempfile.TemporaryDirectory() as folder:
            job = {"peer": "nobody", "config": None, "out": str(pathlib.Path(folder) / "lines")}
            lines = compare.peer_lines(job, 60)
            self.assertEqual(
                [(line["peer"], line["error"]) for line in lines], [("nobody", "this program does not know it")]
            )

    def test_a_missing_binary_is_reported(self):
        options = compare.flags().parse_args(["--data", "x", "--binary", "no-such-binary"])
        lines = compare.vicinal_lines("x", "l2", "--family flat", options)
        self.assertEqual(lines[0]["peer"], "vicinal-flat")
        self.assertIn("no no-such-binary binary", lines[0]["error"])


def run():
    suite = unittest.defaultTestLoader.loadTestsFromModule(__import__("selftest"))
    return 0 if unittest.TextTestRunner(verbosity=1).run(suite).wasSuccessful() else 1
