"""What makes a worker of the harness die where it is told to. Nothing of this is in the product: the hooks are put
around its functions when `tests.faults.worker` starts.

A folder holds the plan: a file for each death, under the name of its point. Whoever comes to that point and can take
the file away dies there, by its own kill -9.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.sql import Composable

from core.records import ParsedDocument
from ingest.parsers.plain import parse_text
from ingest.sandbox import ParseLimits, ParserSandbox
from store import changes, chunks, documents, erase, jobs, listings, sources, tokens
from store.blobs import FsspecBlobs

POISON, SLOW = "poison", "slow"  # words in a document: who reads it dies each time, or takes long
DEATHS_A_JOB = 2  # by plan: a third would be the document's quarantine

# After these statements, before their transaction's commit.
INDEX_STATEMENTS = {
    "claim": jobs.CLAIM,
    "look": chunks.TO_INDEX,
    "stage": jobs.SET_STATE,
    "hold": jobs.HELD,
    "lock": chunks.LOCK_CURRENT,
    "drop": chunks.DROP_CHUNKS,
    "chunks": chunks.ADD_CHUNKS,
    "codes": tokens.ADD,
    "text": chunks.SET_TEXT,
    "supersede": chunks.SUPERSEDE,
    "flip": chunks.FLIP,
    "log": changes.LOG,
    "finish": jobs.FINISH,
}
REFRESH_STATEMENTS = {
    "version": documents.ADD_VERSION, "submitted": documents.SUBMITTED, "job": jobs.ADD_INDEX,
    "fingerprint": sources.SET_MARKS, "listed": listings.ADD, "noted": listings.ADVANCE, "bury": erase.BURY,
    "delete": erase.DELETE, "succeeded": sources.SUCCEEDED,
}  # fmt: skip
INDEX_POINTS = (*INDEX_STATEMENTS, "fetch", "fetched", "parse", "parsed", "embed", "embedded", "vectors", "published")
REFRESH_POINTS = tuple(REFRESH_STATEMENTS)


class Plan:
    """The deaths that are still to come, shared by every process of a run."""

    def __init__(self, folder: Path, host: str = "") -> None:
        self._folder, self._host = folder, host
        self._job: UUID | None = None

    def write(self, deaths: dict[str, int]) -> None:
        """So many deaths at each point."""
        for name in ("spent", "jobs"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        for point, count in deaths.items():
            (self._folder / "plan" / point).mkdir(parents=True)
            for number in range(count):
                (self._folder / "plan" / point / f"{point}.{number}").touch()

    def spent(self) -> dict[str, int]:
        """How many died at each point."""
        found: dict[str, int] = {}
        for file in (self._folder / "spent").iterdir():
            point = file.name.rpartition(".")[0]
            found[point] = found.get(point, 0) + 1
        return found

    def left(self) -> int:
        """How many deaths are still to come."""
        return sum(1 for _ in (self._folder / "plan").glob("*/*"))

    def count(self, what: str) -> None:
        """One more of something, whichever process it happens in."""
        with (self._folder / what).open("ab") as file:
            file.write(b".")

    def counted(self, what: str) -> int:
        """How often it happened."""
        file = self._folder / what
        return file.stat().st_size if file.is_file() else 0

    def hold(self, point: str) -> None:
        """Whoever comes to that point next stands still there."""
        (self._folder / "holds").mkdir(parents=True, exist_ok=True)
        (self._folder / "holding").mkdir(exist_ok=True)
        (self._folder / "holds" / point).touch()

    def held(self) -> tuple[str, UUID] | None:
        """(host, job) of who stands still, once somebody does."""
        found = next((self._folder / "holding").iterdir(), None)
        host, _, job = ("", "", "") if found is None else found.name.partition(".")
        return (host, UUID(job)) if job else None

    def release(self, host: str, job_id: UUID) -> None:
        """It goes on, if it lives."""
        (self._folder / "holding" / f"{host}.{job_id}").unlink()

    def claims(self, job_id: UUID) -> None:
        """This process works on that job from now on."""
        self._job = job_id

    def at(self, point: str) -> None:
        """Stand still or die here, if it is planned."""
        self._stand_still(point)
        waiting = self._folder / "plan" / point
        if self._job is None or not waiting.is_dir():
            return
        for death in waiting.iterdir():
            if not self._may_die():
                return
            with suppress(FileNotFoundError):  # another took it
                death.rename(self._folder / "spent" / death.name)
                os.kill(os.getpid(), signal.SIGKILL)

    def _stand_still(self, point: str) -> None:
        holding = self._folder / "holding" / f"{self._host}.{self._job}"
        with suppress(FileNotFoundError):  # nobody is asked to, or another took it
            (self._folder / "holds" / point).rename(holding)
            while holding.exists():
                time.sleep(0.02)

    def _may_die(self) -> bool:
        for number in range(DEATHS_A_JOB):
            with suppress(FileExistsError):
                (self._folder / "jobs" / f"{self._job}.{number}").touch(exist_ok=False)
                return True
        return False


class DeadlyParser(ParserSandbox):
    """Parses in the worker's process, which so dies with it and is cheap to start; the sandbox has tests of its own."""

    def __init__(self, plan: Plan, slow_s: float) -> None:
        super().__init__()
        self._plan, self._slow_s = plan, slow_s

    def parse(
        self, content: bytes, filename: str | None = None, declared_mime: str | None = None,
        limits: ParseLimits | None = None,
    ) -> ParsedDocument:  # fmt: skip
        self._plan.at("parse")
        if content.startswith(POISON.encode()):
            os.kill(os.getpid(), signal.SIGKILL)
        if content.startswith(SLOW.encode()):
            time.sleep(self._slow_s)
        parsed = parse_text(content)
        self._plan.at("parsed")
        return parsed


class DeadlyBlobs(FsspecBlobs):
    """Whoever reads may die before or after."""

    def __init__(self, url: str, plan: Plan) -> None:
        super().__init__(url)
        self._plan = plan

    def get(self, key: str) -> bytes:
        self._plan.at("fetch")
        content = super().get(key)
        self._plan.at("fetched")
        return content


def around(plan: Plan, function: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
    """The function, with a point before and one after it."""

    def called(*args: Any, **more: Any) -> Any:
        plan.at(before)
        result = function(*args, **more)
        plan.at(after)
        return result

    return called


def arm_statements(plan: Plan) -> None:
    """From now on, whoever executes one of the statements may die of it."""
    points = {text: name for name, text in (INDEX_STATEMENTS | REFRESH_STATEMENTS).items()}
    codes = tokens.ADD.partition("{}")[0]
    execute, executemany = psycopg.Cursor.execute, psycopg.Cursor.executemany

    def deadly(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        if query == jobs.CLAIM:
            plan.claims(params["id"])
        result = execute(self, query, params, **more)
        if isinstance(query, str):
            plan.at(points.get(query, "nowhere"))
        elif isinstance(query, Composable) and codes in query.as_string(self):
            plan.at("codes")
        return result

    def deadly_many(self: Any, query: Any, params_seq: Any, **more: Any) -> None:
        executemany(self, query, _dying(plan, params_seq), **more)

    psycopg.Cursor.execute = deadly  # type: ignore[method-assign]
    psycopg.Cursor.executemany = deadly_many  # type: ignore[method-assign]


def _dying(plan: Plan, rows: Any) -> Iterator[Any]:
    """In the middle of a document's vectors."""
    for number, row in enumerate(rows):
        if number == 1:
            plan.at("vectors")
        yield row
