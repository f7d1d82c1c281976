"""The same random operations go to the server and to the client's own local mode: all answers must agree.

Known differences, which the sequence leaves out: both `points` and `filter` in one change (refused here), `key` when a payload
is replaced (refused here), counts that are not exact (exact here), two updates of one point's vectors in a request with a
filter (tested once here, before both), and a query and its prefetch that both have `should` or both `min_should` (both filters
must hold here; there the conditions are put together, and any of them is enough). Feedback is asked of dense vectors only: local
mode fails for others.

Usage, for more seeds than the acceptance test has: checks_compare.py --binary PATH [--cluster] [--seeds N] [--first N].
"""

import argparse
import re
import sys
from collections import Counter

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from random_reads import Reads
from random_work import DENSE, MULTI, MULTI_DIM, SPARSE, TYPED
from twin import hits_agree, plain, same

NAME = "compare"
OPERATIONS = 2_000
# Kinds of operations that are not sent. Those there are: best_score, context, discover, facet, feedback, formula,
# groups, matrix, mmr, multivectors, no_query, order_by, query_batch, sparse, text.
OFF = set()


def ask(client, call, arguments):
    """The answer, or that there is none."""
    try:
        return getattr(client, call)(NAME, **arguments), None
    except Exception as error:  # local mode has errors of many kinds; whether there is one is what is compared
        return None, error


def is_missing(error):
    """Whether the server says that it cannot do this at all."""
    return isinstance(error, UnexpectedResponse) and b"not supported" in error.content


def what_is_missing(error):
    """What the server says of that, without where it stood in the request."""
    said = error.structured()["status"]["error"].partition(" at line ")[0]
    return re.sub(r"(filter|must_not|must|min_should|should|conditions|prefetch|searches)(\[\d+\])?\.", "", said)


def is_the_clients_mistake(error):
    if isinstance(error, UnexpectedResponse):
        return 400 <= error.status_code < 500
    return isinstance(error, ValueError)


def ordered_agree(ours, theirs):
    """Pages by a field: of points with the same value either may come first, or be the last one shown."""
    (ours, our_next), (theirs, their_next) = ours, theirs
    values = [point["order_value"] for point in ours]
    if our_next != their_next or not same(values, [point["order_value"] for point in theirs]):
        return False
    return all(any(same(point, other) for other in theirs) for point in ours if not same(point["order_value"], values[-1]))


def neighbours(matrix):
    """The hits of each point of a distance matrix."""
    found = {}
    for pair in matrix["pairs"]:
        found.setdefault(pair["a"], []).append({"id": pair["b"], "score": pair["score"]})
    return found


def agree(call, arguments, ours, theirs):
    if call == "query_points":
        return hits_agree(ours["points"], theirs["points"])
    if call == "query_batch_points":
        return all(hits_agree(a["points"], b["points"]) for a, b in zip(ours, theirs, strict=True))
    if call == "scroll" and "order_by" in arguments:
        return ordered_agree(ours, theirs)
    if call == "search_matrix_pairs":
        ours, theirs = neighbours(ours), neighbours(theirs)
        return ours.keys() == theirs.keys() and all(hits_agree(ours[point], theirs[point]) for point in ours)
    if call == "retrieve":
        ours, theirs = ([sorted(points, key=lambda point: str(point["id"])) for points in (ours, theirs)])
    return same(ours, theirs)


def create(client, off):
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    vectors = {name: models.VectorParams(size=dim, distance=distance) for name, (dim, distance) in DENSE.items()}
    if "multivectors" not in off:
        vectors[MULTI] = models.VectorParams(size=MULTI_DIM, distance=models.Distance.COSINE, multivector_config=several)
    sparse = {} if "sparse" in off else {"sparse_vectors_config": {SPARSE: models.SparseVectorParams()}}
    client.delete_collection(NAME)
    client.create_collection(NAME, vectors_config=vectors, shard_number=3, replication_factor=2, **sparse)
    for key, kind in TYPED.items():
        client.create_payload_index(NAME, key, field_schema=kind, wait=True)


def run(client, seed, operations=OPERATIONS, off=None):
    off = OFF if off is None else off
    local = QdrantClient(":memory:")
    for side in (client, local):
        create(side, off)
    work, refused, hits, missing = Reads(seed, off), 0, 0, Counter()
    for step in range(operations):
        call, arguments = work.operation() if step else work.start()
        said = f"seed {seed}, step {step}: {call}({arguments})"
        ours, our_error = ask(client, call, arguments)
        if is_missing(our_error):
            missing[what_is_missing(our_error)] += 1
            continue
        theirs, their_error = ask(local, call, arguments)
        assert (our_error is None) == (their_error is None), f"here {our_error!r}\nlocal {their_error!r}\n{said}"
        assert our_error is None or is_the_clients_mistake(our_error), f"here {our_error!r}\n{said}"
        refused += our_error is not None
        if our_error is None:
            ours, theirs = plain(ours), plain(theirs)
            assert agree(call, arguments, ours, theirs), f"{said}\nhere  {ours}\nlocal {theirs}"
            hits += len(ours["points"]) if call == "query_points" else 0
        if step % 100 == 99:
            everything = dict(limit=1_000, with_payload=True, with_vectors=True)
            ours, theirs = (plain(side.scroll(NAME, **everything)) for side in (client, local))
            assert same(ours, theirs), f"after {said}\nhere  {ours}\nlocal {theirs}"
    assert not missing, f"all else agrees, but {missing.total()} of {operations} operations are missing: {dict(missing)}"
    assert hits > operations / 4 and refused < operations / 2, (hits, refused)
    return f"{operations} operations, {refused} refused by both, {hits} hits"


def random_operations_agree_with_local_mode(client):
    return run(client, seed=1)


CHECKS = [random_operations_agree_with_local_mode]


def main() -> int:
    # Not needed by the check above, and they import it.
    from acceptance import Tally, quiet
    from cluster import Cluster
    from server import Server

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--binary", required=True, help="the vicinal binary")
    arguments.add_argument("--cluster", action="store_true", help="on a cluster instead of `vicinal dev`")
    arguments.add_argument("--seeds", type=int, default=1, help="how many sequences")
    arguments.add_argument("--first", type=int, default=1, help="the first seed")
    arguments.add_argument("--operations", type=int, default=OPERATIONS, help="the length of each")
    arguments.add_argument("--off", default=",".join(sorted(OFF)), help="kinds of operations that are not sent")
    chosen = arguments.parse_args()
    quiet()
    tally, off = Tally(), set(filter(None, chosen.off.split(",")))
    with (Cluster if chosen.cluster else Server)(chosen.binary) as server:
        for seed in range(chosen.first, chosen.first + chosen.seeds):
            tally.run(f"seed {seed}", lambda: run(server.client, seed, chosen.operations, off))
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
