"""Acceptance by unmodified clients: they drive servers of the built binary; local mode and numpy know what is right.

Usage: acceptance.py --binary PATH [--only PART] [--target dev|cluster]. Checks of the clients and frameworks
run on `vicinal dev` and on a cluster of three coordinators and three nodes. Prints one line per check and, at the end,
'N passed, N failed'.
"""

import argparse
import logging
import sys
import time
import traceback
import warnings

import checks_api
import checks_client
import checks_client_async
import checks_cluster
import checks_compare
import checks_haystack
import checks_langchain
import checks_llama_index
import checks_search
from cluster import Cluster
from server import Server

CLIENTS = [checks_client, checks_client_async, checks_langchain, checks_llama_index, checks_haystack, checks_compare]
TARGETS = {"dev": (Server, [checks_api, checks_search, *CLIENTS]), "cluster": (Cluster, [checks_cluster, *CLIENTS])}


SHOWN_CHARACTERS = 600


class Tally:
    """Checks that ran, and their lines."""

    def __init__(self):
        self.passed = self.failed = 0

    def run(self, name, check):
        started = time.monotonic()
        try:
            said = check()
        except Exception:  # whatever a check meets is its failure, the next one still runs
            self.failed += 1
            print(f"FAILED  {name}: {why()}\n{traceback.format_exc(limit=-6)}", flush=True)
        else:
            self.passed += 1
            print(f"ok      {name}{': ' + said if said else ''} ({time.monotonic() - started:.1f} s)", flush=True)


def why():
    """The error that began it all in one line; answers of a server come with what they say."""
    error = sys.exc_info()[1]
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:SHOWN_CHARACTERS]


def quiet():
    """Clients warn of what local mode leaves out and of their own deprecated methods."""
    warnings.simplefilter("ignore")
    logging.getLogger("httpx").setLevel(logging.WARNING)


def no_complaints(server):
    complaints = server.complaints()
    assert not complaints, "\n".join(complaints)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binary", required=True, help="the vicinal binary")
    arguments.add_argument("--only", default="", help="run only checks whose line contains this, for example 'dev: langchain'")
    arguments.add_argument("--target", choices=TARGETS, help="only this one of the two")
    chosen = arguments.parse_args()
    quiet()
    tally = Tally()
    for target, (start, suites) in TARGETS.items():
        if chosen.target not in (None, target):
            continue
        named = [(f"{target}: {suite.__name__.removeprefix('checks_')}: {check.__name__.replace('_', ' ')}", check)
                 for suite in suites for check in suite.CHECKS]
        # That every method was called can be known only of all checks.
        named = [(name, check) for name, check in named
                 if chosen.only in name and not (chosen.only and check.__name__.startswith("every_method"))]
        if not named:
            continue
        with start(chosen.binary) as server:
            for name, check in named:
                tally.run(name, lambda: check(server.client))
            tally.run(f"{target}: the log has no complaints", lambda: no_complaints(server))
    print(f"{tally.passed} passed, {tally.failed} failed")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
