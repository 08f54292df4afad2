"""Small documents that wait are done together with a small one: one embedding, and each its own end."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pytest

from core.errors import ModelMismatch
from core.records import Labels, Submission, Submitted
from ingest import submit
from ingest.attempt import SMALL, attempt
from ingest.pipeline import Pipeline
from models.fake_embedder import FakeEmbedder
from store import jobs
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import World
from tests.integration.rows import fetch

Codes = list[bytes]


@dataclass
class Recording(FakeEmbedder):
    """Remembers what it was asked to embed at once; fails with `error` where a text has `poison`."""

    poison: str | None = None
    error: Exception = field(default_factory=lambda: RuntimeError("cannot embed"))
    asked: list[int] = field(default_factory=list)

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], Codes]:
        self.asked.append(len(texts))
        if self.poison and any(self.poison in text for text in texts):
            raise self.error
        return super().embed_documents_with_tokens(texts)


def accept(world: World, external_id: str, content: bytes, filename: str = "a.md") -> Submitted:
    submission = Submission(external_id, content, Labels(("public",)), filename=filename)
    return submit.submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None)


def several(world: World, count: int) -> list[Submitted]:
    return [accept(world, f"{n}.md", f"the only paragraph of document {n}".encode()) for n in range(count)]


def tried(pipeline: Pipeline, submitted: Submitted) -> str:
    assert submitted.job_id is not None
    return attempt(pipeline, submitted.job_id)


def ends(world: World, of: Sequence[Submitted]) -> list[tuple[str, int]]:
    """State and attempts of each one's job."""
    with writing(world.store) as conn:
        found = [jobs.get(conn, one.job_id) for one in of if one.job_id]
    return [(job.state, job.attempts) for job in found]


@pytest.fixture
def together(pipeline: Pipeline) -> Pipeline:
    return replace(pipeline, embedder=Recording(), together=8)


def test_small_documents_are_embedded_at_once_each_with_its_own_vectors(world: World, together: Pipeline) -> None:
    waiting = several(world, 10)
    assert tried(together, waiting[0]) == "done"
    assert ends(world, waiting) == [("done", 1)] * 8 + [("accepted", 0)] * 2
    assert isinstance(together.embedder, Recording) and together.embedder.asked == [8]
    assert tried(together, waiting[3]) == "skipped"
    of_chunks = f"FROM chunks c JOIN vectors_{world.profile.id} v ON v.chunk_id = c.id"
    rows = fetch(world, f"SELECT c.embed_prefix, c.text, v.embedding::text {of_chunks}")  # noqa: S608
    assert len(rows) == 8
    for prefix, text, vector in rows:
        alone = FakeEmbedder().embed_documents([f"{prefix}\n{text}".lstrip()])[0]
        np.testing.assert_allclose(np.fromstring(vector.strip("[]"), sep=","), alone, atol=1e-3)


def test_what_cannot_be_read_ends_alone(world: World, together: Pipeline) -> None:
    bad = accept(world, "bad.pdf", b"%PDF-1.7 and nothing more", "bad.pdf")
    good = several(world, 3)
    assert tried(together, good[0]) == "done"
    assert ends(world, [bad, *good]) == [("failed", 1)] + [("done", 1)] * 3


def test_an_embedder_that_fails_on_one_puts_all_back_to_be_done_alone(world: World, together: Pipeline) -> None:
    waiting = several(world, 3)
    broken = replace(together, embedder=Recording(poison="document 1"))
    with pytest.raises(RuntimeError, match="cannot embed"):
        tried(broken, waiting[0])
    assert ends(world, waiting) == [("accepted", 1)] * 3
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET next_try_at = now()")
    assert [tried(broken, one) for one in (waiting[0], waiting[2])] == ["done", "done"]


def test_where_the_installation_is_to_blame_no_attempt_is_counted(world: World, together: Pipeline) -> None:
    waiting = several(world, 3)
    broken = replace(together, embedder=Recording(poison="document 1", error=ModelMismatch("another model")))
    assert tried(broken, waiting[0]) == "waits"
    assert ends(world, waiting) == [("accepted", 0)] * 3


def test_who_is_taken_along(world: World, together: Pipeline) -> None:
    with writing(world.store) as conn:
        other_id = ensure_tenant(conn, "other", world.profile.id)
    foreign = accept(replace(world, tenant_id=other_id), "foreign.md", b"another tenant's")
    large = accept(world, "large.md", b"word " * (SMALL // 4))
    tried_before, later, small, lead = several(world, 4)
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET attempts = 1 WHERE id = %s", (tried_before.job_id,))
        conn.execute("UPDATE jobs SET next_try_at = now() + interval '1 h' WHERE id = %s", (later.job_id,))
    assert tried(together, large) == "done"  # alone
    left = [foreign, tried_before, later, small, lead]
    assert [state for state, _ in ends(world, left)] == ["accepted"] * 5
    assert tried(together, lead) == "done"
    assert [state for state, _ in ends(world, left)] == ["accepted"] * 3 + ["done"] * 2


def test_a_worker_that_dies_in_company_counts_for_the_one_it_was_sent_for(world: World, together: Pipeline) -> None:
    waiting = several(world, 3)
    with writing(world.store) as conn:
        lead = jobs.claim(conn, waiting[0].job_id, -1)  # the lease of one that died
        assert lead and len(jobs.claim_small(conn, lead, -1, SMALL, 7)) == 2
    assert ends(world, waiting) == [("parsing", 1), ("parsing", 0), ("parsing", 0)]
    assert tried(together, waiting[1]) == "done"  # alone
    assert ends(world, waiting) == [("parsing", 1), ("done", 1), ("parsing", 0)]
