"""Kept scopes and identity: claims are part of what a scope is kept for, and a closed subject has none."""

from dataclasses import replace

import pytest

from core.errors import Forbidden, Unauthenticated
from core.records import AccessScope
from store import access, erase
from store.explain import explain
from store.pool import reading_tenant, writing
from store.scopes import Resolved
from tests.conftest import World
from tests.integration.rows import fetch
from tests.integration.test_scope_cache import ANA, intern, kept


def close(world: World, subject: str = ANA) -> None:
    """As the directory does it."""
    with writing(world.store) as conn:
        conn.execute("INSERT INTO closed_subjects (tenant_id, subject) VALUES (%s, %s)", (world.tenant_id, subject))


def test_principals_that_differ_in_claims_share_no_scope(world: World) -> None:
    staff, legal = intern(world, "group:staff"), intern(world, "group:legal")
    ana = world.who(ANA)
    for _ in range(2):
        assert kept(world, ana).label_set_ids == ()
        assert kept(world, replace(ana, claims=("group:staff",))).label_set_ids == (staff,)
        assert kept(world, replace(ana, claims=("group:legal",))).label_set_ids == (legal,)


def test_a_closed_subject_uses_no_scope_that_was_kept(world: World) -> None:
    mine = intern(world, ANA)
    claiming = replace(world.who(ANA), claims=("group:staff",))
    before = kept(world)
    assert before.label_set_ids == kept(world, claiming).label_set_ids == (mine,)
    close(world)
    for who in (world.who(ANA), claiming):
        with pytest.raises(Unauthenticated):
            kept(world, who)
    with pytest.raises(Forbidden):
        kept(world, replace(world.who(ANA), via="service:agent"))
    assert kept(world, world.who("user:ben")).epoch > before.epoch
    with writing(world.store) as conn:
        conn.execute("DELETE FROM closed_subjects WHERE tenant_id = %s", (world.tenant_id,))
    assert kept(world).label_set_ids == (mine,)


def test_a_closed_subject_is_refused_even_with_a_scope_kept_at_the_epoch_in_force(world: World) -> None:
    mine = intern(world, ANA)
    close(world)
    epoch = kept(world, world.who("user:ben")).epoch
    scope = AccessScope(world.tenant_id, ANA, (mine,), epoch)
    world.store.scopes.put(world.who(ANA), Resolved(scope, 2**62))
    with pytest.raises(Unauthenticated):
        kept(world)


def test_a_closed_subject_holds_nothing_as_it_is_explained(world: World) -> None:
    document_id = world.add("d", "text", ("public", ANA)).document_id
    close(world)
    with reading_tenant(world.store, world.tenant_id) as conn:
        found = explain(conn, replace(world.who("service:op"), bypass=True), world.who(ANA), document_id)
        assert access.visible_label_sets(conn, world.who(ANA)) == ()
    assert (found.decision, found.allowed_by) == ("no_label_held", ())


def test_a_claim_is_a_way_to_a_label_as_it_is_explained(world: World) -> None:
    world.groups({"group:staff": ["group:legal"]})
    document_id = world.add("d", "text", ("group:staff",)).document_id
    asked = replace(world.who(ANA), claims=("group:legal",))
    with reading_tenant(world.store, world.tenant_id) as conn:
        found = explain(conn, replace(world.who("service:op"), bypass=True), asked, document_id)
    assert found.decision == "visible"
    assert found.allowed_by[0].path == ("group:legal", "group:staff")


def test_an_erasure_names_the_user_behind_a_token(world: World) -> None:
    document_id = world.add("d", "text").document_id
    with writing(world.store) as conn:
        erase.take_away(conn, world.tenant_id, document_id, "idp:okta", acting_for=ANA)
    assert fetch(world, "SELECT actor, acting_for FROM audit WHERE action = 'delete'") == [("idp:okta", ANA)]
