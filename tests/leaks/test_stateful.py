"""Grants, revocations, tokens, groups of a file and of a directory, deactivations, moves, shared sets relabelled,
versions, deletions and searches in any order, against the reference.

The model holds what each document is under; the product must at each search show exactly what the reference allows.
"""

import random
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.errors import Unauthenticated
from core.identity import DirectoryGroup, DirectoryUser, MemberEdit
from core.labels import make_labels
from core.records import Labels, Mode, Principal, SearchRequest, Submitted
from ingest.erase import erase
from retrieval.recall import KeptAnswers
from retrieval.search import Searcher, search
from store import access, directory, documents
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import World
from tests.integration.rows import fetch, read_text_as
from tests.leaks.world import COMMON, GROUPS, PEOPLE, SCALE, Grants, may_see, meet, store_grants
from tests.places import MemoryPlaces

WHO = PEOPLE[:3]
SOME_GROUPS = GROUPS[:4]
PUSHED = SOME_GROUPS[:2]  # a directory pushes members of these as well
CLAIMS = st.lists(st.sampled_from(SOME_GROUPS), min_size=1, max_size=3, unique=True).map(tuple)
UNDER = """
    SELECT 0, id FROM documents WHERE label_set_id = %(set)s
    UNION ALL SELECT version, document_id FROM versions WHERE label_set_id = %(set)s
"""
LABELS = st.builds(
    make_labels,
    st.lists(st.sampled_from((*WHO, *SOME_GROUPS, "public")), min_size=1, max_size=4),
    st.lists(st.sampled_from((*WHO, *SOME_GROUPS)), max_size=1),
    st.sampled_from(SCALE[:3]),
)
Op = Literal["add", "remove", "replace"]
OPS: tuple[Op, ...] = ("add", "remove", "replace")
NUMBERS = count()


@dataclass(slots=True)
class Model:
    """A document: the labels in force, each version's own, and which is read."""

    id: UUID
    in_force: Labels
    current: int | None = None
    latest: int = 0
    labels: dict[int, Labels] = field(default_factory=dict)
    words: dict[int, str] = field(default_factory=dict)
    pending: dict[int, Submitted] = field(default_factory=dict)


def _narrow(doc: Model, version: int, labels: Labels) -> None:
    """Versions before this one never again show more than these labels do."""
    for older, own in doc.labels.items():
        if older < version and own != labels:
            doc.labels[older] = meet(own, labels)


class Tenant(RuleBasedStateMachine):
    """One fresh tenant an example."""

    base: World
    searcher: Searcher
    searches: list[int]  # how many documents each found
    recalled: list[bool]  # which of them were given again
    by_claims: list[int]  # of how many of the tenant's the token's groups decided

    @initialize()
    def start(self) -> None:
        with writing(self.base.store) as conn:
            tenant = ensure_tenant(conn, f"stateful-{next(NUMBERS)}", self.base.profile.id)
        self.world, self.grants, self.docs = replace(self.base, tenant_id=tenant), Grants(), dict[str, Model]()
        self.step = 0
        self.pushed: frozenset[tuple[str, str]] = frozenset()
        self.claims: dict[str, tuple[str, ...]] = dict.fromkeys(WHO, ())
        with writing(self.base.store) as conn:
            self.users = {who: directory.create_user(conn, tenant, DirectoryUser(who.removeprefix("user:"))).id
                          for who in WHO}  # fmt: skip
            self.groups = {group: directory.create_group(conn, tenant, DirectoryGroup(group.removeprefix("group:")),
                                                         ()).id for group in PUSHED}  # fmt: skip
        starting = (["public"], [WHO[0], SOME_GROUPS[0]], SOME_GROUPS[1:3])
        for name, labels in zip("abc", map(make_labels, starting), strict=True):
            self._submit(name, labels, at_once=True)

    def _grant(self, grants: Grants) -> None:
        self.grants = grants
        store_grants(self.world, grants)

    @property
    def held(self) -> Grants:
        """The file's grants with the directory's."""
        return replace(self.grants, memberships=self.grants.memberships | self.pushed)

    def _who(self, subject: str) -> Principal:
        return replace(self.world.who(subject), claims=self.claims[subject])

    @rule(who=st.sampled_from(WHO), claims=CLAIMS)
    def come_with_a_token(self, who: str, claims: tuple[str, ...]) -> None:
        self.claims = {**self.claims, who: claims}

    @rule(group=st.sampled_from(PUSHED), members=st.sets(st.sampled_from(WHO)), op=st.sampled_from(OPS))
    def push_members(self, group: str, members: set[str], op: Op) -> None:
        edit = MemberEdit(op, tuple(self.users[who] for who in members))
        with writing(self.world.store) as conn:
            directory.locked_group(conn, self.world.tenant_id, self.groups[group])
            directory.edit_members(conn, self.world.tenant_id, self.groups[group], [edit])
        named = frozenset((who, group) for who in members)
        others = frozenset(pair for pair in self.pushed if pair[1] != group)
        changed = {"add": self.pushed | named, "remove": self.pushed - named, "replace": others | named}
        self.pushed = changed[op]

    @rule(who=st.sampled_from(WHO), active=st.sampled_from((True, True, False)))
    def deactivate(self, who: str, active: bool) -> None:
        with writing(self.world.store) as conn:
            old = directory.locked_user(conn, self.world.tenant_id, self.users[who])
            directory.change_user(conn, self.world.tenant_id, self.users[who], replace(old.user, active=active))
        self.grants = replace(self.grants, closed=self.grants.closed - {who} if active else self.grants.closed | {who})

    @precondition(lambda self: self.docs)
    @rule(data=st.data(), labels=LABELS)
    def relabel_a_shared_set(self, data: st.DataObject, labels: Labels) -> None:
        """Which documents and versions share the set is the product's to tell; what each is under, the model's."""
        doc = self.docs[data.draw(st.sampled_from(sorted(self.docs)))]
        ((shared,),) = fetch(self.world, "SELECT label_set_id FROM documents WHERE id = %s", doc.id)
        with writing(self.world.store) as conn:
            under = conn.execute(UNDER, {"set": shared}).fetchall()
            access.relabel_set(conn, self.world.tenant_id, shared, labels)
        assert (0, doc.id) in under
        for version, document_id in under:
            other = next(each for each in self.docs.values() if each.id == document_id)
            other.in_force = labels if version == 0 else other.in_force
            other.labels |= {version: labels} if version else {}

    @rule(member=st.sampled_from((*WHO, *SOME_GROUPS, "public")), group=st.sampled_from(SOME_GROUPS))
    def grant(self, member: str, group: str) -> None:
        self._grant(replace(self.grants, memberships=self.grants.memberships | {(member, group)}))

    @precondition(lambda self: self.grants.memberships)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.grants.memberships)))
        self._grant(replace(self.grants, memberships=self.grants.memberships - {gone}))

    @precondition(lambda self: self.grants.memberships)
    @rule(group=st.sampled_from(SOME_GROUPS))
    def empty_a_group(self, group: str) -> None:
        left = frozenset(pair for pair in self.grants.memberships if pair[1] != group)
        self._grant(replace(self.grants, memberships=left))

    @rule(subject=st.sampled_from(WHO), classification=st.sampled_from(SCALE))
    def clear(self, subject: str, classification: str) -> None:
        others = {**dict(self.grants.clearances), subject: classification}
        self._grant(replace(self.grants, clearances=tuple(others.items())))

    @rule(name=st.sampled_from(("a", "b", "c")), labels=LABELS, at_once=st.sampled_from((True, True, False)))
    def submit(self, name: str, labels: Labels, at_once: bool) -> None:
        self._submit(name, labels, at_once)

    def _submit(self, name: str, labels: Labels, at_once: bool) -> None:
        word = f"w{random.Random(next(NUMBERS)).getrandbits(60):x}w"
        sent = self.world.submit(
            name, f"{COMMON} {word}", labels.allow, deny=labels.deny, classification=labels.classification
        )
        doc = self.docs.setdefault(name, Model(sent.document_id, labels))
        if doc.latest and labels != doc.in_force:
            doc.in_force = meet(doc.in_force, labels)
        _narrow(doc, sent.version, labels)
        doc.latest, doc.labels[sent.version], doc.words[sent.version] = sent.version, labels, word
        doc.pending[sent.version] = sent
        if at_once:
            self._index(doc, sent.version)

    @precondition(lambda self: any(doc.pending for doc in self.docs.values()))
    @rule(data=st.data())
    def index(self, data: st.DataObject) -> None:
        waiting = sorted((name, version) for name, doc in self.docs.items() for version in doc.pending)
        name, version = data.draw(st.sampled_from(waiting))
        self._index(self.docs[name], version)

    def _index(self, doc: Model, version: int) -> None:
        assert self.world.index(doc.pending.pop(version))
        doc.current, doc.in_force = version, doc.labels[version]
        doc.pending = {later: sent for later, sent in doc.pending.items() if later > version}

    @precondition(lambda self: self.docs)
    @rule(data=st.data(), labels=LABELS)
    def move(self, data: st.DataObject, labels: Labels) -> None:
        doc = self.docs[data.draw(st.sampled_from(sorted(self.docs)))]
        with writing(self.world.store) as conn:
            documents.change_labels(conn, self.world.tenant_id, doc.id, labels)
        doc.in_force = labels
        doc.labels |= {version: labels for version in doc.labels if version >= (doc.current or 0)}
        _narrow(doc, doc.current or 0, labels)

    @precondition(lambda self: self.docs)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        doc = self.docs.pop(data.draw(st.sampled_from(sorted(self.docs))))
        erase(self.world.store, self.world.blobs, self.world.tenant_id, doc.id, by="service:test")
        left = [self._who(who) for who in WHO if who not in self.grants.closed]
        assert all(read_text_as(self.world, who, doc.id, n) is None for who in left for n in doc.words)

    @invariant()
    def ask(self) -> None:
        self.step += 1
        mode: Mode = ("hybrid", "dense", "lexical")[self.step // 12 % 3]  # so that equal questions come again
        self._ask(self._who(WHO[self.step % 3]), mode)

    def _ask(self, principal: Principal, mode: Mode) -> None:
        if principal.subject in self.grants.closed:
            with pytest.raises(Unauthenticated):
                search(self.searcher, principal, SearchRequest(COMMON, mode=mode, top_k=50))
            return
        found = search(self.searcher, principal, SearchRequest(COMMON, mode=mode, top_k=50))
        expected = {doc.words[doc.current] for doc in self.docs.values()
                    if doc.current and may_see(self.held, principal, doc.in_force)}  # fmt: skip
        assert not found.degraded
        assert {passage.text.split()[1] for passage in found.passages} == expected
        self.searches.append(len(expected))
        self.recalled.append(found.recalled)
        bare = replace(principal, claims=())
        self.by_claims.append(sum(may_see(self.held, principal, doc.in_force) != may_see(self.held, bare, doc.in_force)
                                  for doc in self.docs.values() if doc.current))  # fmt: skip

    @precondition(lambda self: self.docs)
    @rule(who=st.sampled_from(WHO))
    def read_every_version(self, who: str) -> None:
        principal = self._who(who)
        if who in self.grants.closed:
            with pytest.raises(Unauthenticated):
                read_text_as(self.world, principal, next(iter(self.docs.values())).id)
            return
        for doc in self.docs.values():
            for version, word in doc.words.items():
                seen = all(may_see(self.held, principal, each) for each in (doc.in_force, doc.labels[version]))
                text = read_text_as(self.world, principal, doc.id, version)
                if text is not None:  # a version that was overtaken before it was indexed has none
                    assert seen and word in text
                elif version == doc.current:
                    assert not seen


def test_no_order_of_changes_shows_or_hides_too_much(world: World, searcher: Searcher) -> None:
    searches: list[int] = []
    by_claims: list[int] = []
    recalled: list[bool] = []
    keeping = replace(searcher, answers=KeptAnswers(MemoryPlaces(), "stateful"))
    shared = {"base": world, "searcher": keeping, "searches": searches, "recalled": recalled, "by_claims": by_claims}
    machine = type("Machine", (Tenant,), shared)
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=25, stateful_step_count=30, deadline=None, derandomize=True, database=None,
                          suppress_health_check=list(HealthCheck)),
    )  # fmt: skip
    assert sum(found > 0 for found in searches) > 3 and sum(found == 0 for found in searches) > 3
    assert sum(recalled) > 20
    assert sum(decided > 0 for decided in by_claims) > 3
