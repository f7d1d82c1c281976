"""Acceptance by an unmodified client: qdrant-client drives a server of the built binary, numpy knows what is right.

Usage: acceptance.py --binary PATH [--only PART]. Prints one line per check and, at the end, 'N passed, N failed'.
"""

import argparse
import sys
import traceback

import checks_api
import checks_compare
import checks_search
from server import Server


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--binary", required=True, help="the vicinal binary")
    arguments.add_argument("--only", default="", help="run only checks whose name contains this")
    chosen = arguments.parse_args()
    checks = [check for module in (checks_api, checks_search, checks_compare) for check in module.CHECKS]
    checks = [check for check in checks if chosen.only in check.__name__]
    passed = failed = 0
    with Server(chosen.binary) as server:
        for check in checks:
            name = check.__name__.replace("_", " ")
            try:
                said = check(server.client)
            except Exception:  # whatever a check meets is its failure, the next one still runs
                failed += 1
                print(f"FAILED  {name}\n{traceback.format_exc()}", flush=True)
            else:
                passed += 1
                print(f"ok      {name}{': ' + said if said else ''}", flush=True)
        complaints = server.complaints()
        if complaints:
            failed += 1
            print("FAILED  the log has no complaints\n" + "\n".join(complaints))
        else:
            passed += 1
            print("ok      the log has no complaints")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
