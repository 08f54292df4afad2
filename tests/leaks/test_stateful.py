"""Grants, revocations, groups, moves, versions, deletions and searches in any order, against the reference.

The model holds what each document is under; the product must at each search show exactly what the reference allows.
"""

import random
from dataclasses import dataclass, field, replace
from itertools import count
from uuid import UUID

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

from core.labels import make_labels
from core.records import Labels, Mode, Principal, SearchRequest, Submitted
from ingest.erase import erase
from retrieval.search import Searcher, search
from store import documents
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import World
from tests.integration.rows import read_text
from tests.leaks.world import COMMON, GROUPS, PEOPLE, SCALE, Grants, may_see, meet, store_grants

WHO = PEOPLE[:3]
SOME_GROUPS = GROUPS[:4]
LABELS = st.builds(
    make_labels,
    st.lists(st.sampled_from((*WHO, *SOME_GROUPS, "public")), min_size=1, max_size=4),
    st.lists(st.sampled_from((*WHO, *SOME_GROUPS)), max_size=1),
    st.sampled_from(SCALE[:3]),
)
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
    searches: list[int]

    @initialize()
    def start(self) -> None:
        with writing(self.base.store) as conn:
            tenant = ensure_tenant(conn, f"stateful-{next(NUMBERS)}", self.base.profile.id)
        self.world, self.grants, self.docs = replace(self.base, tenant_id=tenant), Grants(), dict[str, Model]()
        self.step = 0
        for name, labels in (("a", make_labels(["public"])), ("b", make_labels([WHO[0], SOME_GROUPS[0]]))):
            self._submit(name, labels, at_once=True)

    def _grant(self, grants: Grants) -> None:
        self.grants = grants
        store_grants(self.world, grants)

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
        assert all(read_text(self.world, who, doc.id, n) is None for who in WHO for n in doc.words)

    @invariant()
    def ask(self) -> None:
        self.step += 1
        mode: Mode = ("hybrid", "dense", "lexical")[self.step // 3 % 3]
        self._ask(self.world.who(WHO[self.step % 3]), mode)

    def _ask(self, principal: Principal, mode: Mode) -> None:
        found = search(self.searcher, principal, SearchRequest(COMMON, mode=mode, top_k=50))
        expected = {doc.words[doc.current] for doc in self.docs.values()
                    if doc.current and may_see(self.grants, principal, doc.in_force)}  # fmt: skip
        assert not found.degraded
        assert {passage.text.split()[1] for passage in found.passages} == expected
        self.searches.append(len(expected))

    @precondition(lambda self: self.docs)
    @rule(who=st.sampled_from(WHO))
    def read_every_version(self, who: str) -> None:
        principal = self.world.who(who)
        for doc in self.docs.values():
            for version, word in doc.words.items():
                seen = all(may_see(self.grants, principal, each) for each in (doc.in_force, doc.labels[version]))
                text = read_text(self.world, who, doc.id, version)
                if text is not None:  # a version that was overtaken before it was indexed has none
                    assert seen and word in text
                elif version == doc.current:
                    assert not seen


def test_no_order_of_changes_shows_or_hides_too_much(world: World, searcher: Searcher) -> None:
    searches: list[int] = []
    machine = type("Machine", (Tenant,), {"base": world, "searcher": searcher, "searches": searches})
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=15, stateful_step_count=30, deadline=None, derandomize=True, database=None,
                          suppress_health_check=list(HealthCheck)),
    )  # fmt: skip
    assert sum(found > 0 for found in searches) > 3 and sum(found == 0 for found in searches) > 3
