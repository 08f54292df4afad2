"""`make leaks`: the leak suite at full size, on a Postgres and Redis of its own. Exits 1 on any leak."""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from typing import Any
from uuid import UUID

from fastapi.testclient import TestClient

from api.app import create_app
from api.service import Service
from embedded.place import erase_servers
from embedded.postgres import start_postgres
from embedded.redis import start_redis
from models.embedder import open_embedder
from retrieval.search import Searcher
from store.blobs import FsspecBlobs
from store.broker import RedisBroker
from store.migrate import as_owner, create_database, migrate, role_url
from store.pool import open_store, writing
from store.profiles import ensure_profile, ensure_tenant
from tests.conftest import FAKE_PROFILE, MAX_BODY, PASSWORDS, Api, World
from tests.engines import FollowedAllTheTime
from tests.leaks.asking import open_run
from tests.leaks.interleaved import foreign_rows
from tests.leaks.paired import differences
from tests.leaks.probes import sweep, wander
from tests.leaks.registry import missed, unregistered
from tests.leaks.world import generate

WORLD_PROBES = 50_000  # then another world


@contextmanager
def servers() -> Iterator[tuple[Path, str, str]]:
    """A folder, and the URLs of an administrator's Postgres and of a Redis."""
    folder = Path(tempfile.mkdtemp(prefix="citadel-leaks-"))
    folder.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(erase_servers, folder)
        postgres = start_postgres(folder, durable=False)
        stack.callback(postgres.stop)
        redis = start_redis(folder, durable=False)
        stack.callback(redis.stop)
        yield folder, postgres.url, redis.url


@contextmanager
def opened(folder: Path, postgres: str, redis: str, name: str) -> Iterator[tuple[Api, str, str]]:
    """The API over an empty database of that name, and the URLs of its two roles."""
    url = create_database(postgres, name)
    migrate(url, PASSWORDS)
    urls = [role_url(url, role, PASSWORDS[role]) for role in ("citadel_app", "citadel_maintenance")]
    with as_owner(url) as conn:
        profile = ensure_profile(conn, FAKE_PROFILE)
    store = open_store(urls[0], urls[1])
    with writing(store) as conn:
        tenant: UUID = ensure_tenant(conn, "default", profile.id)
    blobs = FsspecBlobs((folder / "blobs" / name).as_uri())
    index = FollowedAllTheTime(store, folder / "lexical" / name)
    searcher = Searcher(store, open_embedder("fake", folder), index)
    service = Service(store, blobs, searcher, RedisBroker(redis), MAX_BODY, (Path("/"),))
    try:
        with TestClient(create_app(lambda: nullcontext(service), MAX_BODY), raise_server_exceptions=False) as http:
            yield Api(http, World(store, blobs, tenant, profile, searcher.embedder)), urls[0], urls[1]
    finally:
        searcher.threads.shutdown(cancel_futures=True)
        index.close()
        store.close()


def probe(api: Api, seed: int, probes: int) -> dict[str, Any]:
    """One world, probed until the count."""
    run = open_run(api, generate(api.world, seed), seed)
    for number, done in enumerate(chain(sweep(run), wander(run, probes))):
        if number % 100 == 0:
            print(f"seed {seed}: {done:,} of {probes:,} probes, {len(run.tally.leaks)} leaks", file=sys.stderr)
    app: Any = api.http.app
    return {"probes": run.tally.probes, "requests": run.tally.requests, "leaks": run.tally.leaks,
            "unregistered": unregistered(app) + missed(app, run.tally)}  # fmt: skip


def report(probes: int, queries: int, turns: int, seed: int) -> dict[str, Any]:
    """Everything, in numbers."""
    told: dict[str, Any] = {"seed": seed, "probes": 0, "requests": 0, "worlds": 0, "leaks": [], "unregistered": []}
    with servers() as (folder, postgres, redis):
        while told["probes"] < probes:
            number = told["worlds"]
            with opened(folder, postgres, redis, f"leaks_{number}") as (api, _, _):
                found = probe(api, seed + number, min(WORLD_PROBES, probes - told["probes"]))
            told |= {key: told[key] + value for key, value in found.items()} | {"worlds": number + 1}
        with opened(folder, postgres, redis, "paired") as (api, app_url, maintenance_url):
            filled, wrong = differences(api, seed, queries)
            told |= {"paired_queries": queries, "paired_with_passages": filled, "paired_differences": wrong}
            print(f"paired worlds: {queries:,} queries, {len(wrong)} differences", file=sys.stderr)
            told["interleaved"] = {"turns": turns, **foreign_rows(api.world, app_url, maintenance_url, turns, seed)}
    return told


def failed(told: dict[str, Any]) -> bool:
    """Whether anything leaked, differed or went unlooked at."""
    rows = told["interleaved"]
    return bool(told["leaks"] or told["unregistered"] or told["paired_differences"] or rows["foreign"] or rows["left"])


def main() -> int:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.leaks", description=__doc__)
    parser.add_argument("--probes", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=2_000, help="of the paired worlds")
    parser.add_argument("--turns", type=int, default=10_000, help="of the interleaved principals")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    started = time.perf_counter()
    told = report(arguments.probes, arguments.queries, arguments.turns, arguments.seed)
    told["seconds"] = round(time.perf_counter() - started, 1)
    if arguments.json:
        print(json.dumps(told, indent=1))
    else:
        for name, value in told.items():
            print(f"{name}: {len(value) if isinstance(value, list) else value}")
        print("\n".join(told["leaks"][:20] + told["unregistered"] + told["paired_differences"][:20]))
    return int(failed(told))


if __name__ == "__main__":
    sys.exit(main())
