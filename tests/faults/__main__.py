"""Kill, cut, flush, fill and restart everything, while work comes and readers read: python -m tests.faults [--json]

Its own Postgres, Redis, blob store and processes, in a folder of its own. As root the blob store is a small tmpfs that
can be filled, and network namespaces are hosts that can be cut off; else these faults are left out, and the table says
so. The exit status is 1 when anything was not held.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

from tests.faults.hosts import Hosts, outcome_of_hosts, rows_of_hosts
from tests.faults.run import Size
from tests.faults.table import outcome_of, rows_of


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for each in fields(Size):
        parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(each.default), default=each.default)
    parser.add_argument("--keep", action="store_true", help="Leave the folder with the logs.")
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args())
    keep, as_json = options.pop("keep"), options.pop("json")
    state = Path(tempfile.mkdtemp(prefix="citadel-faults-"))
    try:
        outcome = outcome_of(_inner(state, "one"), replace(Size(), **options))
        hosts = outcome_of_hosts(_inner(state, "several"), Hosts())
    finally:
        if keep:
            print(f"logs: {state}", file=sys.stderr)
        else:
            shutil.rmtree(state, ignore_errors=True)
    rows = [*rows_of(outcome), *rows_of_hosts(hosts)]
    if as_json:
        print(json.dumps({**outcome, "hosts": hosts, "held": all(held for *_, held in rows)}))
    else:
        for name, count, told, held in rows:
            print(f"{'held' if held else 'BROKEN':7} {name:45} {count:>8}  {told}")
    return 0 if all(held for *_, held in rows) else 1


def _inner(state: Path, name: str) -> Path:
    state.chmod(0o711)
    (state / name).mkdir()
    return state / name


if __name__ == "__main__":
    sys.exit(main())
