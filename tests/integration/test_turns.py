"""Tenants take turns at the dispatcher, whatever one of them has waiting, and a look at what is next stays cheap."""

import json
from uuid import UUID

import pytest

from store import jobs, turns
from store.pool import Conn, writing
from store.profiles import ensure_tenant
from tests.conftest import World

WAITING = 30_000  # with 100,000 a look reads no more: docs/decisions/0033
QUEUE = 200  # messages that the broker takes before workers take some
ADD = """
    INSERT INTO jobs (tenant_id, kind, created_at)
    SELECT %s, 'index', now() - interval '1 day' + n * interval '1 ms' FROM generate_series(1, %s) n RETURNING id
"""


def add(conn: Conn, tenant_id: UUID, count: int) -> list[UUID]:
    return [row[0] for row in conn.execute(ADD, (tenant_id, count)).fetchall()]


def take(conn: Conn, limit: int) -> list[UUID]:
    return turns.take_unsent(conn, "index", limit, 900, 30)


def finish(conn: Conn, job_ids: list[UUID]) -> None:
    conn.execute("UPDATE jobs SET state = 'done' WHERE id = ANY(%s)", (job_ids,))


def pages(conn: Conn, limit: int) -> int:
    """How many pages a look reads."""
    values = {"kind": "index", "max": jobs.MAX_ATTEMPTS, "limit": limit, "resend_after_s": 900, "overtaken_s": 30}
    row = conn.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {turns.TO_SEND}", values).fetchone()
    assert row is not None
    plan = (json.loads(row[0]) if isinstance(row[0], str) else row[0])[0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


def test_one_job_of_another_tenant_is_sent_in_the_next_round_of_so_many(world: World) -> None:
    with writing(world.store) as conn:
        other = ensure_tenant(conn, "other", world.profile.id)
        add(conn, world.tenant_id, 1000)
        conn.execute("ANALYZE jobs")
        at_first = pages(conn, QUEUE)
        add(conn, world.tenant_id, WAITING - 1000)
        conn.execute("ANALYZE jobs")
        assert pages(conn, QUEUE) < 2 * at_first  # of thirty times as many rows
        under_way = take(conn, QUEUE)
        assert len(under_way) == QUEUE and take(conn, 0) == []
        (single,) = conn.execute("INSERT INTO jobs (tenant_id, kind) VALUES (%s, 'index') RETURNING id", (other,))
        finish(conn, under_way[:1])
        assert take(conn, 1) == [single[0]]  # the first place that is free, though all others came before it


@pytest.mark.parametrize("free", [1, 3, 40])
def test_tenants_that_all_have_much_waiting_share_evenly(world: World, free: int) -> None:
    with writing(world.store) as conn:
        tenants = [world.tenant_id, *(ensure_tenant(conn, f"t{n}", world.profile.id) for n in range(3))]
        owner = {job_id: tenant_id for tenant_id in tenants for job_id in add(conn, tenant_id, 300)}
        under_way = take(conn, QUEUE)
        for _ in range(60 // free + 1):  # whichever end first
            finish(conn, under_way[:free])
            under_way = [*under_way[free:], *take(conn, free)]
            held = [sum(owner[job_id] == tenant_id for job_id in under_way) for tenant_id in tenants]
            assert sum(held) == QUEUE and max(held) - min(held) <= free


def test_within_a_tenant_the_first_comes_first(world: World) -> None:
    with writing(world.store) as conn:
        expected = add(conn, world.tenant_id, 30)
        assert [job_id for _ in range(3) for job_id in take(conn, 10)] == expected


def test_a_tenant_whose_jobs_all_wait_for_another_try_takes_no_turn(world: World) -> None:
    with writing(world.store) as conn:
        other = ensure_tenant(conn, "other", world.profile.id)
        add(conn, world.tenant_id, 50)
        conn.execute("UPDATE jobs SET next_try_at = now() + interval '1 minute'")
        expected = add(conn, other, 20)
        assert take(conn, QUEUE) == expected
