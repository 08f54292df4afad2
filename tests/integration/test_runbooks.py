"""Every command of the runbooks is run, in its order, against what the runbook is about."""

import json
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from click.testing import CliRunner

from cli.main import citadel
from core.errors import NotFound
from embedded.postgres import programs_folder
from embedded.process import wait_until
from embedded.server import Server
from ingest.erase import erase
from store import jobs, keys, profiles
from store.broker import QUEUES
from store.migrate import prepare_roles, role_url
from store.pool import open_store, reading_tenant, writing
from tests.conftest import PASSWORDS, World
from tests.integration.rows import fetch, read_text

RUNBOOKS = Path("docs/runbooks")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
ASSIGNED = re.compile(r"([A-Z_]+)=(.*)", re.DOTALL)
INLINE = re.compile(r"`((?:citadel|pg_\w+|psql|createdb|cp) [^`]+)`")
ANA = "user:ana"


def commands(name: str) -> list[str]:
    """The lines of the runbook's fenced blocks."""
    return [
        line.strip()
        for _, block in FENCED.findall((RUNBOOKS / name).read_text())
        for line in block.splitlines()
        if line.strip()
    ]


@dataclass(slots=True)
class Desk:
    """Where an operator sits: a shell that knows assignments, variables and `>`."""

    world: World
    variables: dict[str, str]
    before: dict[str, Callable[[], object]] = field(default_factory=dict)  # what has happened when a line begins so
    said: dict[str, str] = field(default_factory=dict)

    def follow(self, runbook: str) -> None:
        """Run every line; each must succeed."""
        for line in commands(runbook):
            for start, happen in self.before.items():
                if line.startswith(start):
                    happen()
            self.said[line] = self.run(line)

    def run(self, line: str) -> str:
        words = [string.Template(word).substitute(self.variables) for word in shlex.split(line)]
        environment = dict(self.variables)
        while assigned := ASSIGNED.fullmatch(words[0]):
            environment[assigned[1]] = assigned[2]
            words.pop(0)
        target = Path(words[words.index(">") + 1]) if ">" in words else None
        words = words[: words.index(">")] if target else words
        printed = self._citadel(words[1:], environment) if words[0] == "citadel" else self._program(words, environment)
        if target:
            target.write_text(printed)
        return printed

    def _citadel(self, words: list[str], environment: dict[str, str]) -> str:
        done = CliRunner().invoke(citadel, words, env=environment)
        assert done.exit_code == 0, (words, done.output, done.exception)
        return done.stdout

    def _program(self, words: list[str], environment: dict[str, str]) -> str:
        done = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout


@pytest.fixture
def desk(
    world: World, database_url: str, app_url: str, maintenance_url: str, empty_redis: Server, tmp_path: Path
) -> Iterator[Desk]:
    state = tmp_path / "state"
    state.mkdir()
    variables = {
        "CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url,
        "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_REDIS_URL": empty_redis.url,
        "CITADEL_STATE": str(state), "CITADEL_BLOB_URL": (tmp_path / "blobs").as_uri(), "CITADEL_MODEL": "fake",
        "CITADEL_LEXICAL": "rank-bm25", "PATH": f"{programs_folder()}:{os.defpath}", "LC_ALL": "C",
        "BLOBS": str(tmp_path / "blobs"), "EVIDENCE": str(tmp_path / "audit.jsonl"), "OLD_PROFILE": "test",
    }  # fmt: skip
    yield Desk(world, variables)


def age(world: World) -> None:
    """Two days go by."""
    with writing(world.store) as conn:
        conn.execute("UPDATE kept_profiles SET since = since - interval '2 days'")


def small_profile(desk: Desk) -> None:
    """A profile that is live, and the one before."""
    desk.run("citadel profile build small --chunk-tokens 60")
    desk.run('citadel profile promote small --golden "$GOLDEN"')


def golden(desk: Desk, tmp_path: Path) -> None:
    """Documents, and questions that they answer."""
    words = ("heron", "kestrel", "osprey", "plover", "curlew", "avocet", "dunlin", "godwit", "whimbrel", "turnstone")
    for word in words:
        desk.world.add(f"{word}.md", f"The {word} is a bird. " * 30)
    lines = [{"query": f"the {word}", "as": ANA, "relevant": [{"document": f"{word}.md"}]} for word in words]
    file = tmp_path / "golden.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    desk.variables |= {"GOLDEN": str(file), "QUESTION": "the heron", "SOMEBODY": ANA}


def source(desk: Desk, tmp_path: Path) -> None:
    """A folder that is looked at again and again."""
    desk.variables["SOURCE"] = "handbook"
    desk.run(f"citadel sources add handbook {tmp_path}")


@contextmanager
def working(desk: Desk, tmp_path: Path) -> Iterator[None]:
    """A worker on this host, as long as it lasts."""
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "cli.main", "worker", "--processes", "1", "--queues", "upkeep"]
        worker = subprocess.Popen(command, env=desk.variables, stdout=output, stderr=output)
    try:
        assert wait_until(lambda: b"ready." in log.read_bytes(), 60), log.read_text()
        yield
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()


def test_stuck_queue(desk: Desk, empty_redis: Server, tmp_path: Path) -> None:
    submitted = desk.world.submit("waits", "It waits.")
    source(desk, tmp_path)
    desk.variables["JOB"] = str(submitted.job_id)
    desk.before = {"citadel sources pause": lambda: desk.run("citadel sources refresh handbook")}
    desk.follow("stuck-queue.md")
    assert desk.said["citadel dispatch --once"] == "1 sent\n"
    assert fetch(desk.world, "SELECT kind FROM jobs WHERE state = 'cancelled'") == [("refresh",)]
    assert fetch(desk.world, "SELECT FROM sources WHERE paused_at IS NOT NULL") == []
    with redis.Redis.from_url(empty_redis.url) as broker:
        assert broker.llen(QUEUES["index"]) == 1


def test_poison_document(desk: Desk, tmp_path: Path) -> None:
    world = desk.world
    source(desk, tmp_path)
    trying = world.submit("trying", "It kills as well.")
    submitted = world.submit("poison", "It kills.")
    for _ in range(jobs.MAX_ATTEMPTS):
        lease = world.claim(submitted)
        with writing(world.store) as conn:
            jobs.retry_or_quarantine(conn, lease, "worker_lost", "the worker died")
            conn.execute("UPDATE jobs SET next_try_at = now()")
    desk.variables |= {"JOB": str(submitted.job_id), "DOCUMENT": str(submitted.document_id),
                       "STILL_TRYING": str(trying.job_id)}  # fmt: skip
    desk.follow("poison-document.md")
    assert str(submitted.job_id) in desk.said["citadel jobs list --state quarantined"]
    assert "try again" in desk.said["citadel jobs retry $JOB"]
    assert fetch(world, "SELECT external_id FROM documents") == [("trying",)]
    assert fetch(world, "SELECT state FROM jobs WHERE id = %s", trying.job_id) == [("cancelled",)]
    assert fetch(world, "SELECT FROM sources WHERE paused_at IS NOT NULL") == []


def test_model_change(desk: Desk, tmp_path: Path) -> None:
    golden(desk, tmp_path)
    desk.before = {"citadel profile drop": lambda: age(desk.world)}
    desk.follow("model-change.md")
    assert "small is live" in desk.said['citadel profile promote small --golden "$GOLDEN"']
    assert "test is live again" in desk.said["citadel profile rollback"]
    assert "bird" in desk.said['citadel search "$QUESTION" --as "$SOMEBODY"']
    assert "and its tables" in desk.said['citadel profile drop "$OLD_PROFILE"']
    with writing(desk.world.store) as conn:
        assert profiles.live_profile(conn, desk.world.tenant_id).chunk_tokens == 60
        with pytest.raises(NotFound):
            profiles.profile_named(conn, "test")
        assert conn.execute("SELECT to_regclass('vectors_1')").fetchone() == (None,)
    desk.world.submit("later", "Writes go on.")


def test_restore_from_backup(desk: Desk, database_url: str, tmp_path: Path) -> None:
    world = desk.world
    erased, kept = world.add("erased", "The canary sings."), world.add("kept", "The heron stays.")
    backup = tmp_path / "backup"
    backup.mkdir()
    restored = urlsplit(database_url)._replace(path="/citadel_restored").geturl()
    maintenance = role_url(restored, "citadel_maintenance", PASSWORDS["citadel_maintenance"])
    desk.variables |= {"BACKUP": str(backup), "RESTORED_URL": restored, "RESTORED_MAINTENANCE_URL": maintenance,
                       "ERASED": str(erased.document_id)}  # fmt: skip

    def erase_it() -> None:  # after the backup of the day, before that of the hour
        erase(world.store, world.blobs, world.tenant_id, erased.document_id, by="service:test")

    desk.before = {"citadel tombstones export": erase_it}
    try:
        desk.follow("restore.md")
        store = open_store(role_url(restored, "citadel_app", PASSWORDS["citadel_app"]), maintenance, size=2)
        there = World(store, world.blobs, world.tenant_id, world.profile, world.embedder)
        with reading_tenant(store, world.tenant_id):
            assert read_text(there, ANA, erased.document_id) is None
            assert read_text(there, ANA, kept.document_id) == "The heron stays."
        store.close()
    finally:
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS citadel_restored WITH (FORCE)")
    replayed = next(said for line, said in desk.said.items() if "tombstones replay" in line)
    assert "1 documents erased again" in replayed


def test_key_rotation(desk: Desk, database_url: str) -> None:
    with writing(desk.world.store) as conn:
        first = keys.create_key(conn, desk.world.tenant_id, "agent", ["search"])
    new = role_url(database_url, "citadel_maintenance", "new-maintenance")
    desk.variables |= {"NEW_APP": "new-app", "NEW_MAINTENANCE": "new-maintenance", "NEW_MAINTENANCE_URL": new}
    seen: list[bool] = []

    def rotated() -> None:
        with writing(desk.world.store) as conn:
            seen.append(keys.find_key(conn, first) is not None)

    desk.before = {"citadel keys rotate agent --overlap-hours 0": rotated, "citadel audit export": rotated,
                   "citadel identity": lambda: prepare_roles(database_url, PASSWORDS)}  # fmt: skip
    try:
        desk.follow("key-rotation.md")
    finally:
        prepare_roles(database_url, PASSWORDS)
    assert seen == [True, False]  # it opens the key during the overlap, and not after
    assert "key.rotate" in Path(desk.variables["EVIDENCE"]).read_text()


def test_disk_full(desk: Desk, tmp_path: Path) -> None:
    golden(desk, tmp_path)
    world = desk.world
    for number in range(6):
        world.add("often.md", f"Changed {number} times.")
    with writing(world.store) as conn:
        conn.execute("UPDATE versions SET created_at = created_at - interval '60 days'")
        conn.execute("UPDATE jobs SET updated_at = updated_at - interval '91 days' WHERE version <= 2")
    small_profile(desk)
    source(desk, tmp_path)
    desk.before = {"citadel profile drop": lambda: age(world)}
    with working(desk, tmp_path):
        desk.follow("disk-full.md")
    assert "drained: celery@" in desk.said["citadel worker --drain"]
    assert fetch(world, "SELECT FROM sources WHERE paused_at IS NOT NULL") == []
    assert fetch(world, "SELECT version FROM versions v JOIN documents d ON d.id = document_id "
                        "WHERE external_id = 'often.md' ORDER BY 1") == [(3,), (4,), (5,), (6,)]  # fmt: skip
    said = next(said for line, said in desk.said.items() if "--step retention" in line)
    assert "2 versions" in said and re.search(r"jobs +\d+ jobs", said)


def test_there_is_a_test_for_each_runbook_and_no_command_outside_of_the_fences() -> None:
    tested = {name.removeprefix("test_").replace("_", "-") + ".md" for name in globals() if name.startswith("test_")}
    tested |= {"restore.md"}
    for path in sorted(RUNBOOKS.glob("*.md")):
        assert path.name in tested
        text = path.read_text()
        assert {language for language, _ in FENCED.findall(text)} == {"sh"}
        outside = INLINE.findall(FENCED.sub("", text))
        run = "\n".join(commands(path.name))
        assert [command for command in outside if command not in run] == []
