"""Submissions, label changes and jobs in any order: nobody ever reads a text that its labels keep from them."""

from dataclasses import dataclass, field
from uuid import uuid4

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.labels import make_labels
from core.records import Labels, Submitted
from store import access, documents, jobs
from store.pool import reading_tenant, writing
from tests.conftest import World
from tests.integration.rows import read_text

HOLDS = {
    "user:hana": {"user:hana", "group:hr", "group:staff", "public"},
    "user:sam": {"user:sam", "group:staff", "public"},
    "user:otto": {"user:otto", "public"},
}
ALLOW = st.lists(st.sampled_from(("group:hr", "group:staff", "user:otto", "public")), min_size=1, max_size=2)


@dataclass(slots=True)
class Expected:
    """What may be read of one document: each version's own labels, and those that came later and limit it."""

    own: dict[int, Labels] = field(default_factory=dict)
    limits: dict[int, list[Labels]] = field(default_factory=dict)
    current: int = 0

    def submitted(self, version: int, labels: Labels) -> None:
        """Labels came with a version, new or known: they limit everything before it, and are its own."""
        for earlier in range(1, version):
            self.limits[earlier].append(labels)
        self.own[version] = labels
        self.limits.setdefault(version, [])

    def put(self, labels: Labels) -> None:
        """Labels of the document, from the current version on."""
        for version in self.own:
            if version >= self.current:
                self.own[version], self.limits[version] = labels, []
            else:
                self.limits[version].append(labels)

    def may_read(self, subject: str, version: int) -> bool:
        """The version's own labels allow it and all that came after it, and so do the document's."""
        every = {self.own[version], *self.limits[version], self.own[self.current], *self.limits[self.current]}
        return all(HOLDS[subject] & set(labels.allow) for labels in every)

    def must_read(self, subject: str) -> bool:
        """Nothing came since the current version: its own labels decide."""
        return not self.limits[self.current] and bool(HOLDS[subject] & set(self.own[self.current].allow))


@dataclass(slots=True)
class Trial:
    """One document of the world, and what is expected of it."""

    world: World
    name: str = field(default_factory=lambda: uuid4().hex)
    expected: Expected = field(default_factory=Expected)
    sent: dict[int, Submitted] = field(default_factory=dict)
    pending: list[int] = field(default_factory=list)

    def submit(self, number: int, labels: Labels) -> None:
        """One of three texts: a new version, a relabelling, or nothing."""
        sent = self.world.submit(self.name, f"text {number}", labels.allow)
        if sent.version not in self.sent:
            self.sent[sent.version] = sent
            self.pending.append(sent.version)
            self.expected.submitted(sent.version, labels)
        elif sent.version == self.expected.current:
            self.expected.put(labels)
        else:
            self.expected.submitted(sent.version, labels)

    def put(self, number: int, labels: Labels) -> None:
        """PUT labels."""
        with writing(self.world.store) as conn:
            documents.change_labels(conn, self.world.tenant_id, self.sent[1].document_id, labels)
        self.expected.put(labels)

    def index(self, number: int, labels: Labels) -> None:
        """One of the jobs is done, in any order."""
        if self.pending:
            version = self.pending.pop(number % len(self.pending))
            if self.world.index(self.sent[version]):
                self.expected.current = version

    def fail(self, number: int, labels: Labels) -> None:
        """One of the jobs fails."""
        if self.pending:
            version = self.pending.pop(number % len(self.pending))
            with writing(self.world.store) as conn:
                jobs.fail(conn, self.world.claim(self.sent[version]), "corrupt_document", "it is cut off")

    def texts_read(self, subject: str) -> set[int]:
        """The versions whose text the application's role reads for the subject."""
        with reading_tenant(self.world.store, self.world.tenant_id) as conn:
            access.enter_scope(conn, self.world.who(subject))
            query = "SELECT version FROM versions WHERE document_id = %s AND text IS NOT NULL"
            return {row[0] for row in conn.execute(query, (self.sent[1].document_id,)).fetchall()}

    def check(self) -> int:
        """Everything read may be read, and what must be is; returns how many texts were read."""
        read = 0
        for subject in HOLDS if self.expected.current else ():
            texts = self.texts_read(subject)
            wrong = [version for version in texts if not self.expected.may_read(subject, version)]
            assert not wrong, (subject, wrong, self.expected)
            assert self.expected.current in texts or not self.expected.must_read(subject), (subject, self.expected)
            read += len(texts)
        return read


steps: st.SearchStrategy[tuple[str, int, list[str]]] = st.tuples(
    st.sampled_from(("submit", "submit", "index", "index", "put", "fail")), st.integers(0, 2), ALLOW
)


def test_no_order_shows_what_it_may_not(world: World) -> None:
    world.groups({"group:hr": ["user:hana"], "group:staff": ["user:hana", "user:sam"]})
    read = 0

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(ALLOW, st.lists(steps, min_size=4, max_size=12))
    def holds(first: list[str], script: list[tuple[str, int, list[str]]]) -> None:
        nonlocal read
        trial = Trial(world)
        trial.submit(0, make_labels(first))
        for action, number, allow in script:
            {"submit": trial.submit, "index": trial.index, "put": trial.put, "fail": trial.fail}[action](
                number, make_labels(allow)
            )
            read += trial.check()

    holds()
    assert read > 300  # it did look at something


def test_until_it_is_indexed_a_version_stands_under_the_higher_class(world: World) -> None:
    """Ana is cleared for `internal`, as everybody is by default; Otto for `restricted`."""
    world.groups({}, {"user:otto": "restricted"})
    for before, after in (("confidential", "internal"), ("internal", "confidential")):
        submitted = world.add(before, "the first text", classification=before)
        assert (read_text(world, "user:ana", submitted.document_id) is not None) == (before == "internal")
        second = world.submit(before, "the second text", classification=after)
        assert read_text(world, "user:ana", submitted.document_id) is None
        assert read_text(world, "user:otto", submitted.document_id) == "the first text"
        assert world.index(second)
        assert read_text(world, "user:ana", submitted.document_id) == (
            "the second text" if after == "internal" else None
        )
