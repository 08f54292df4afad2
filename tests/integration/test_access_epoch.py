"""Every change of a grant moves the tenant's access epoch, whoever makes it; nothing else does."""

from collections.abc import Iterator
from itertools import takewhile
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from core.errors import InvalidLabel
from core.labels import make_labels
from core.records import AccessScope, Principal
from embedded.server import Server
from store import access, migrate, safety
from store.migrate import as_owner, create_database, role_url
from store.pool import open_store, reading_tenant, set_scope, writing
from store.profiles import ensure_profile, ensure_tenant
from tests.conftest import FAKE_PROFILE, PASSWORDS, World

ANA = "user:ana"


def epoch_of(world: World) -> int:
    """The tenant's access epoch."""
    with writing(world.store) as conn:
        row = conn.execute("SELECT access_epoch FROM tenants WHERE id = %s", (world.tenant_id,)).fetchone()
    assert row is not None
    return int(row[0])


def intern(world: World, *allow: str) -> int:
    """A label set's id."""
    with writing(world.store) as conn:
        return access.intern_labels(conn, world.tenant_id, make_labels(allow))


CHANGES: list[LiteralString] = [
    "INSERT INTO memberships VALUES (%(t)s, 'user:ben', 'group:staff')",
    "UPDATE memberships SET member = 'user:eve' WHERE tenant_id = %(t)s",
    "DELETE FROM memberships WHERE tenant_id = %(t)s",
    "INSERT INTO clearances VALUES (%(t)s, 'user:ben', 'public')",
    "INSERT INTO clearances VALUES (%(t)s, 'user:ana', 'public')"
    " ON CONFLICT (tenant_id, subject) DO UPDATE SET classification = excluded.classification",
    "UPDATE clearances SET classification = 'public' WHERE tenant_id = %(t)s",
    "DELETE FROM clearances WHERE tenant_id = %(t)s",
    "INSERT INTO classifications VALUES (%(t)s, 'secret', 9)",
    "UPDATE classifications SET rank = 7 WHERE tenant_id = %(t)s AND name = 'internal'",
    "DELETE FROM classifications WHERE tenant_id = %(t)s AND name = 'public'",
    "UPDATE label_sets SET allow = '{}' WHERE tenant_id = %(t)s",
    "DELETE FROM label_sets WHERE tenant_id = %(t)s",
    "UPDATE tenants SET default_clearance = 'public' WHERE id = %(t)s",
]


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_grant_moves_the_epoch_whoever_makes_it(
    world: World, neighbour: World, change: LiteralString
) -> None:
    world.groups({"group:staff": [ANA]}, {ANA: "confidential"})
    intern(world, "group:staff")
    before, elsewhere = epoch_of(world), epoch_of(neighbour)
    with writing(world.store) as conn:
        assert conn.execute(change, {"t": world.tenant_id}).rowcount > 0
    assert epoch_of(world) > before
    assert epoch_of(neighbour) == elsewhere


def test_emptying_a_table_of_grants_moves_the_epoch(world: World, database_url: str) -> None:
    before = epoch_of(world)
    with psycopg.connect(database_url) as admin:
        admin.execute("TRUNCATE memberships")
    assert epoch_of(world) > before


def test_moving_a_grant_to_another_tenant_moves_both_epochs(world: World, neighbour: World) -> None:
    world.groups({"group:staff": [ANA]})
    before = epoch_of(world), epoch_of(neighbour)
    with writing(world.store) as conn:
        conn.execute("UPDATE memberships SET tenant_id = %s", (neighbour.tenant_id,))
    assert epoch_of(world) > before[0] and epoch_of(neighbour) > before[1]


def test_what_is_no_change_of_a_grant_moves_no_epoch(world: World) -> None:
    world.groups({"group:staff": [ANA]}, {ANA: "restricted"})
    before = epoch_of(world)
    world.groups({"group:staff": [ANA]}, {ANA: "restricted"})
    intern(world, "group:other")
    world.add("d", "text", ("group:staff",))
    assert epoch_of(world) == before


def test_an_epoch_is_not_used_twice_by_a_database_that_was_restored(world: World) -> None:
    """As after a restore: the row is as it was, and the next change must not lead to an epoch that was seen before."""
    saved = epoch_of(world)
    world.groups({"group:staff": [ANA]})
    lost = epoch_of(world)
    with writing(world.store) as conn:
        conn.execute("UPDATE tenants SET access_epoch = %s", (saved,))
    world.groups({"group:staff": ["user:ben"]})
    assert epoch_of(world) > lost


def test_loading_groups_replaces_them_whole(world: World) -> None:
    world.groups({"group:a": ["user:x", "user:y"], "group:b": ["user:x"]}, {"user:x": "public", "user:y": "public"})
    world.groups({"group:a": ["user:y", "user:z"]}, {"user:x": "restricted"})
    with writing(world.store) as conn:
        members = conn.execute("SELECT member, group_label FROM memberships").fetchall()
        cleared = conn.execute("SELECT subject, classification FROM clearances").fetchall()
    assert sorted(members) == [("user:y", "group:a"), ("user:z", "group:a")]
    assert cleared == [("user:x", "restricted")]
    with pytest.raises(InvalidLabel):
        world.groups({"group:a": ["no label"]})


# --- a database that was there before -----------------------------------------------------------------------------


@pytest.fixture
def earlier(postgres: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with the migrations that came before this one, a profile and a tenant; the rest is still to come."""
    name = f"earlier_{uuid4().hex[:12]}"
    url = create_database(postgres.url, name)
    known = tuple(takewhile(lambda each: not each.name.endswith("_access"), migrate.read_migrations()))
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "read_migrations", lambda: known)
        migrate.migrate(url, PASSWORDS)
    with as_owner(url) as conn:
        profile = ensure_profile(conn, FAKE_PROFILE)
    with psycopg.connect(role_url(url, "citadel_maintenance", PASSWORDS["citadel_maintenance"])) as conn:
        ensure_tenant(conn, "default", profile.id)
    yield url
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_database_that_was_there_before_keeps_its_label_sets_and_gets_its_policies(earlier: str) -> None:
    with psycopg.connect(role_url(earlier, "citadel_maintenance", PASSWORDS["citadel_maintenance"])) as conn:
        ((tenant_id,),) = conn.execute("SELECT id FROM tenants").fetchall()
        conn.execute("INSERT INTO label_sets (tenant_id, allow, deny, classification, hash)"
                     " VALUES (%s, '{user:ana}', '{}', 'internal', 'x')", (tenant_id,))  # fmt: skip
    assert any(name.endswith("_access") for name in migrate.migrate(earlier, {}))
    app, maintenance = (role_url(earlier, role, password) for role, password in PASSWORDS.items())
    store = open_store(app, maintenance)
    try:
        with reading_tenant(store, tenant_id) as conn:
            assert safety.violations(conn) == []
            ids = access.enter_scope(conn, Principal(tenant_id, ANA), store.scopes).label_set_ids
            set_scope(conn, AccessScope(tenant_id, ANA, (*ids, *range(100, 200)), 1))
            assert len(ids) == 1 and conn.execute("SELECT count(*) FROM vectors_1").fetchone() == (0,)
    finally:
        store.close()
