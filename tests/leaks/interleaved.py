"""Principals that take turns on two pooled connections, some failing and some cancelled: nobody gets another's row."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from core.errors import StoreUnavailable
from store import access
from store.pool import Store, open_store, reading_tenant, writing
from store.profiles import ensure_tenant
from tests.conftest import World

DOCUMENTS = "SELECT external_id FROM documents"


def foreign_rows(world: World, app_url: str, maintenance_url: str, turns: int, seed: int) -> dict[str, int]:
    """Counts over `turns`: own rows read, foreign rows read, failures, cancellations, identities left on a connection.

    Sixteen principals of two tenants, of which two by two have the same name.
    """
    with writing(world.store) as conn:
        rival = replace(world, tenant_id=ensure_tenant(conn, "interleaved", world.profile.id))
    people = [(each, f"user:p{number}") for each in (world, rival) for number in range(8)]
    for each, person in people:
        each.add(_own(each, person), f"only for {person}", (person,))
    small = open_store(app_url, maintenance_url, size=2)
    fates = random.Random(seed).choices(("read", "raise", "cancel"), (12, 2, 1), k=turns)
    counts = dict.fromkeys(("own", "foreign", "raised", "cancelled", "left"), 0)
    lock = threading.Lock()

    def one(number: int) -> None:
        each, person = people[number % len(people)]
        told = _turn(small, each, person, fates[number])
        with lock:
            for name in told:
                counts[name] += 1

    try:
        with ThreadPoolExecutor(6) as threads:
            list(threads.map(one, range(turns)))
        counts["left"] = _left(small)
    finally:
        small.close()
    return counts


def _own(world: World, person: str) -> str:
    return f"{world.tenant_id}/{person}"


def _turn(store: Store, world: World, person: str, fate: str) -> list[str]:
    try:
        with reading_tenant(store, world.tenant_id) as conn:
            access.enter_scope(conn, world.who(person))
            if fate == "raise":
                raise KeyError(person)
            if fate == "cancel":
                timer = threading.Timer(0.005, conn.cancel)
                timer.start()
                try:
                    conn.execute("SELECT pg_sleep(5)")
                finally:
                    timer.join()
            names = [row[0] for row in conn.execute(DOCUMENTS).fetchall()]
    except KeyError:
        return ["raised"]
    except StoreUnavailable:
        assert fate == "cancel"
        return ["cancelled"]
    return ["own" if name == _own(world, person) else "foreign" for name in names]


def _left(store: Store) -> int:
    """How many of the pool's connections still have an identity, or see a document."""
    left = 0
    with store.app.connection() as one, store.app.connection() as two:
        for conn in (one, two):
            settings = conn.execute("SELECT current_setting('citadel.tenant', true), "
                                    "current_setting('citadel.label_sets', true)").fetchone()  # fmt: skip
            left += any(settings or ()) or bool(conn.execute(DOCUMENTS).fetchall())
    return left
