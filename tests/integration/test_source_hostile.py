"""Repositories, databases and readers that want more than to be read."""

import os
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import CitadelError, Invalid, InvalidRules, SourceUnavailable
from core.records import Labels, Source
from embedded.server import Server
from ingest.source import DocumentSource
from ingest.sources.open import open_source
from tests.stages import Git


def opened(kind: str, tmp_path: Path, **config: Any) -> DocumentSource:
    scratch = tmp_path / uuid4().hex
    scratch.mkdir()
    return open_source(Source(uuid4(), uuid4(), "s", kind, config, Labels(), None, 0.3, None), None, scratch)


def listed(source: DocumentSource) -> dict[str, bytes]:
    items = [item for page in source.enumerate() for item in page.items]
    return {item.external_id: source.fetch(item, Labels()).content for item in items}


@pytest.fixture
def repository(tmp_path: Path) -> Git:
    return Git(tmp_path / "repository")


def test_links_submodules_and_hidden_files_of_a_repository_are_no_documents(repository: Git, tmp_path: Path) -> None:
    repository.put("a", "text")
    (repository.root / "docs/link.txt").symlink_to("/etc/passwd")
    (repository.root / "docs/.secret").write_text("x")
    repository.git(
        "-c", "protocol.file.allow=always", "submodule", "add", "--quiet", repository.root.as_uri(), "docs/sub"
    )
    (repository.root / "docs/é ü\n.txt").write_text("odd")
    repository.commit()
    assert listed(opened("git", tmp_path, url=repository.root.as_uri(), folder="docs")) == {
        "a.txt": b"text", "é ü\n.txt": b"odd"}  # fmt: skip


@pytest.mark.parametrize("name", ["docs/.citadel.yaml", "CODEOWNERS"])
def test_who_may_see_what_is_not_read_through_a_link_nor_taken_for_unsaid(
    repository: Git, tmp_path: Path, name: str
) -> None:
    repository.put("a", "text")
    (repository.root / "closed").write_text("version: 1\ndefault: {allow: [group:finance]}\n")
    (repository.root / name).unlink(missing_ok=True)
    (repository.root / name).symlink_to("../closed")
    repository.commit()
    with pytest.raises(InvalidRules, match="link"):
        listed(opened("git", tmp_path, url=repository.root.as_uri(), folder="docs", owners="CODEOWNERS"))


def test_nothing_of_a_repository_is_run(repository: Git, tmp_path: Path) -> None:
    """Hooks, filters and a configuration of the other side's; and of the worker's own surroundings."""
    repository.put("a", "text")
    (repository.root / ".gitattributes").write_text("*.txt filter=evil diff=evil\n")
    repository.commit()
    sign = tmp_path / "ran"
    for hook in ("post-checkout", "post-merge", "reference-transaction", "pre-receive", "post-update"):
        file = repository.root / ".git/hooks" / hook
        file.write_text(f"#!/bin/sh\ntouch {sign}\n")
        file.chmod(0o755)
    repository.git("config", "uploadpack.packObjectsHook", f"touch {sign};")
    os.environ["GIT_SSH_COMMAND"] = f"touch {sign};"
    try:
        assert listed(opened("git", tmp_path, url=repository.root.as_uri())) != {}
    finally:
        del os.environ["GIT_SSH_COMMAND"]
    assert not sign.exists()


def test_a_repository_that_is_not_there_or_has_no_such_branch_is_unavailable(repository: Git, tmp_path: Path) -> None:
    repository.put("a", "text")
    for config in ({"url": f"{repository.root.as_uri()}x"}, {"url": repository.root.as_uri(), "branch": "none"},
                   {"url": repository.root.as_uri(), "folder": "nowhere"}):  # fmt: skip
        with pytest.raises(SourceUnavailable):
            listed(opened("git", tmp_path, **config))
    with pytest.raises(CitadelError, match="no owners file"):
        listed(opened("git", tmp_path, url=repository.root.as_uri(), owners="nowhere"))


@pytest.mark.parametrize("statement", ["DELETE FROM notes", "UPDATE notes SET body = 'x'", "DROP TABLE notes"])
def test_a_query_cannot_write(tmp_path: Path, statement: str) -> None:
    with sqlite3.connect(tmp_path / "n.db") as conn:
        conn.execute("CREATE TABLE notes (id text, body text)")
        conn.execute("INSERT INTO notes VALUES ('a', 'text')")
    url = f"sqlite:///{tmp_path}/n.db"
    assert listed(opened("sql", tmp_path, url=url, query="SELECT id, body AS text FROM notes")) == {"a": b"text"}
    with pytest.raises(CitadelError):
        listed(opened("sql", tmp_path, url=url, query=f"SELECT 'a' AS id, 'b' AS text) q; {statement}; --"))
    with sqlite3.connect(tmp_path / "n.db") as conn:
        assert conn.execute("SELECT body FROM notes").fetchall() == [("text",)]


def test_a_function_that_writes_is_stopped_by_the_transaction(postgres: Server, tmp_path: Path) -> None:
    os.environ["CITADEL_TEST_DSN"] = postgres.url
    source = opened("sql", tmp_path, secrets={"url": "env:CITADEL_TEST_DSN"},
                    query="SELECT lo_create(0)::text AS id, 'b' AS text")  # fmt: skip
    with pytest.raises(SourceUnavailable, match="read-only"):
        listed(source)


def test_a_query_without_its_columns_and_a_row_without_labels_are_told(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "n.db") as conn:
        conn.execute("CREATE TABLE notes (id text, body text, who text)")
        conn.execute("INSERT INTO notes VALUES ('a', 'text', NULL)")
    url = f"sqlite:///{tmp_path}/n.db"
    with pytest.raises(Invalid, match="no column text"):
        listed(opened("sql", tmp_path, url=url, query="SELECT id FROM notes"))
    source = opened("sql", tmp_path, url=url, query="SELECT id, body AS text, who AS labels FROM notes")
    (item,) = next(source.enumerate()).items
    with pytest.raises(Invalid, match="nobody knows who may see it"):
        source.permissions(item)


def test_llama_indexs_own_readers_are_run_by_name(tmp_path: Path) -> None:
    texts = ["the first text", "the second text"]
    source = opened("reader", tmp_path, reader="llama_index.core.readers:StringIterableReader", load={"texts": texts})
    assert sorted(listed(source).values()) == [text.encode() for text in texts]


def test_a_reader_has_none_of_the_workers_environment_and_ends_in_time(tmp_path: Path) -> None:
    os.environ["CITADEL_TEST_HIDDEN"] = "worker-secret"
    (found,) = listed(opened("reader", tmp_path, reader="tests.json_notes:Nosy")).values()
    assert b"worker-secret" not in found and b"CITADEL" not in found
    started = time.monotonic()
    with pytest.raises(SourceUnavailable, match="did not end within 1 s"):
        listed(opened("reader", tmp_path, reader="tests.json_notes:Slow", timeout_s=1))
    assert time.monotonic() - started < 20
    os.environ["CITADEL_TEST_READER"] = "reader-secret"
    with pytest.raises(SourceUnavailable) as told:
        listed(
            opened("reader", tmp_path, reader="tests.json_notes:Failing", secrets={"token": "env:CITADEL_TEST_READER"})
        )
    assert "[secret]" in str(told.value) and "reader-secret" not in str(told.value)


def test_git_is_the_binary_that_is_meant() -> None:
    assert subprocess.run(["git", "--version"], capture_output=True, check=True).stdout.startswith(b"git version 2")
