"""The main job from HTTP through Celery to a cited answer, with what must be refused refused."""

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from citadel_client import CitadelClient, Labels, NewDocument, NotFound
from click.testing import CliRunner
from pypdf import PdfWriter

from cli.main import citadel
from tests.acceptance.conftest import ROOT, Stack

SMOKE = ROOT.parent / "shared" / "tools" / "contract_smoke.py"
EXAMPLE = ROOT / "examples" / "acme"


def test_the_contract_holds_line_by_line(stack: Stack) -> None:
    if not SMOKE.is_file():
        pytest.skip("the contract's smoke script is not beside this checkout")
    environment = {**os.environ, "CITADEL_URL": stack.url, "CITADEL_KEY": stack.key}
    done = subprocess.run([sys.executable, str(SMOKE)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("the contract holds")


def test_a_labelled_document_is_found_cited_and_denied(stack: Stack) -> None:
    with stack.client() as client:
        text = "The vault opens at nine. 🗝 Its keeper is Mara Quist, who holds the only key."
        sent = client.submit(
            NewDocument(external_id="vault.txt", text=text, labels=Labels(allow=("user:mara@acme.example",)))
        )
        job = client.wait(sent.job_id, timeout=60)
        assert job.state == "done"
        mara, noor = client.acting_for("user:mara@acme.example"), client.acting_for("user:noor@acme.example")
        answer = mara.search("who keeps the vault?", at_least=job.seq)
        cited = answer.passages[0].citation
        assert cited.document_id == sent.document_id
        assert mara.cited_text(cited) == answer.passages[0].text == text[cited.start : cited.end]
        assert "vault" not in json.dumps([p.text for p in noor.search("who keeps the vault?").passages])
        with pytest.raises(NotFound):
            noor.document(sent.document_id)
        with pytest.raises(NotFound):
            noor.cited_text(cited)


@pytest.fixture(scope="module")
def folder(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example company's files, ingested as the source `acme`."""
    target = tmp_path_factory.mktemp("acme") / "files"
    shutil.copytree(EXAMPLE / "files", target)
    stack.citadel("groups", "load", str(EXAMPLE / "groups.yaml"))
    stack.citadel("sources", "add", "acme", str(target))
    counts = refresh(stack)["counts"]
    assert set(counts) == {"new"} and counts["new"] >= 40
    return target


def refresh(stack: Stack) -> dict[str, Any]:
    """The detail of a refresh that ran to its end, indexing included."""
    return dict(json.loads(stack.citadel("refresh", "acme", "--wait", "--json"))["detail"])


def indexed_since(client: CitadelClient, stack: Stack, since: float) -> list[dict[str, Any]]:
    """Indexing jobs that embedded something, newer than a Unix time."""
    jobs = json.loads(stack.citadel("jobs", "list", "--limit", "1000", "--json"))
    return [j for j in jobs if j["kind"] == "index" and j["created_at"] > since and "ms" in j["detail"]]


def test_every_file_of_the_example_is_indexed(stack: Stack, folder: Path) -> None:
    jobs = json.loads(stack.citadel("jobs", "list", "--limit", "1000", "--json"))
    assert {j["state"] for j in jobs} == {"done"}, [j for j in jobs if j["state"] != "done"]


def test_the_golden_set_returns_nothing_forbidden(stack: Stack, folder: Path) -> None:
    report = json.loads(stack.citadel("eval", "run", str(EXAMPLE / "golden.jsonl"), "--k", "1,3,5,10", "--json"))
    assert report["forbidden"]["count"] == 0
    assert report["measures"]["RR@10"] > 0.5  # a search that is broken but lawful does not pass either


def commands(page: Path, place: Path) -> list[list[str]]:
    """The `citadel …` lines of the page's shell blocks, in order; what its blocks write is written to `place`."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE):
        for name, content in re.findall(r"^cat > (\S+) <<'END'\n(.*?)^END$", block, re.DOTALL | re.MULTILINE):
            (place / name).write_text(content)
        found += [shlex.split(line)[1:] for line in block.splitlines() if line.startswith("citadel ")]
    return found


def test_every_command_of_the_page_on_evaluating(
    stack: Stack, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    asked = commands(ROOT / "docs" / "evaluating.md", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert len(asked) >= 15 and {tuple(each[:2]) for each in asked} >= {
        ("golden", "check"), ("golden", "import"), ("golden", "export"), ("golden", "list"), ("eval", "run"),
        ("eval", "list"), ("eval", "compare"), ("eval", "gate"), ("golden", "pool"), ("tune", "acme"),
        ("eval", "answers"), ("eval", "schedule"),
    }  # fmt: skip
    # a gate takes no run whose answers went without a stage, and a busy machine is slow
    environment = stack.environment | {"CITADEL_SEARCH_DEADLINE_S": "60", "CITADEL_LATE_BOX_S": "60"}
    for command in asked:
        done = CliRunner().invoke(citadel, command, env=environment, catch_exceptions=False)
        assert done.exit_code == 0, (command, done.output)
    pages = ("main.html", "comparison.md", "comparison.html", "tune.html", "answers.html")
    for written in (*pages, "gate.xml", "acme-beir/queries.jsonl"):
        assert (tmp_path / written).stat().st_size > 0


def test_a_refresh_embeds_only_what_changed(stack: Stack, folder: Path) -> None:
    with stack.client() as client:
        ana = client.acting_for("user:ana@acme.example")
        before = {d.external_id: d for d in client.documents(source="acme")}
        note = "company/town-hall-2025-10.md"
        (folder / note).write_text((folder / note).read_text() + "\n## Postscript\n\nThe ferret is called Umlaut.\n")
        (folder / "company/glossary.txt").rename(folder / "company/words.txt")
        (folder / "company/office-guide.md").unlink()
        rules = (folder / ".citadel.yaml").read_text()
        (folder / ".citadel.yaml").write_text(
            rules.rstrip() + '\n  - path: "company/holiday-calendar-2026.csv"\n    allow: [group:legal]\n'
        )
        started = json.loads(stack.citadel("jobs", "list", "--limit", "1", "--json"))[0]["created_at"]
        counts = refresh(stack)["counts"]
        assert {k: v for k, v in counts.items() if k != "unchanged"} == {
            "changed": 1, "moved": 1, "relabelled": 1, "deleted": 1,
        }  # fmt: skip
        embedded = indexed_since(client, stack, started)
        assert [j["document_id"] for j in embedded] == [str(before[note].document_id)]
        after = {d.external_id: d for d in client.documents(source="acme")}
        assert after["company/words.txt"].document_id == before["company/glossary.txt"].document_id
        assert ana.search("What is the ferret called?").passages[0].citation.external_id == note
        found = {p.citation.external_id for p in ana.search("office guide opening hours desks", top_k=50).passages}
        assert not found & {"company/office-guide.md", "company/glossary.txt"}
        seen = {p.citation.external_id for p in ana.search("public holidays 2026 calendar", top_k=50).passages}
        assert "company/holiday-calendar-2026.csv" not in seen


def test_what_cannot_be_read_is_told_and_the_rest_goes_on(stack: Stack, folder: Path) -> None:
    broken = folder / "broken"
    broken.mkdir()
    pdf = next((folder / "company").glob("*.pdf")).read_bytes()
    (broken / "unknown.bin").write_bytes(bytes(range(256)) * 8)
    (broken / "empty.txt").write_bytes(b"")
    (broken / "empty.docx").write_bytes(b"")
    (broken / "cut.pdf").write_bytes(pdf[: len(pdf) // 2])
    (broken / "locked.pdf").write_bytes(encrypted(pdf))
    (broken / "fine.txt").write_text("A sentence about marmalade that parses.")
    told = json.loads(stack.citadel("refresh", "acme", "--wait", "--json", status=1))  # not all of it is indexed
    assert (told["state"], len(told["not_indexed"])) == ("done", 5)
    jobs = json.loads(stack.citadel("jobs", "list", "--state", "failed", "--json"))
    assert sorted(j["error_code"] for j in jobs) == [
        "corrupt_document", "empty_document", "empty_document", "encrypted_document", "unsupported_type",
    ]  # fmt: skip
    assert all(j["error"] for j in jobs)
    shutil.rmtree(broken)


def encrypted(pdf: bytes) -> bytes:
    """The same PDF behind a password."""
    writer = PdfWriter(clone_from=io.BytesIO(pdf))
    writer.encrypt("a password", algorithm="AES-256")
    locked = io.BytesIO()
    writer.write(locked)
    return locked.getvalue()


def test_the_clients_contract_holds_against_the_real_server(stack: Stack) -> None:
    environment = {**os.environ, "CITADEL_URL": stack.url, "CITADEL_KEY": stack.key}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "client/tests/test_client_contract.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0 and "skipped" not in done.stdout, done.stdout[-3000:]


def test_flushing_the_broker_loses_nothing(stack: Stack) -> None:
    import redis

    from core.config import read_runtime

    with stack.client() as client:
        sent = [
            client.submit(NewDocument(external_id=f"flush/{i}", text=f"Note {i}.", labels=Labels(allow=("public",))))
            for i in range(30)
        ]
        redis.Redis.from_url(read_runtime(stack.state)["redis_url"]).flushall()
        started = time.monotonic()
        assert all(client.wait(s.job_id, timeout=90).state == "done" for s in sent)
        assert time.monotonic() - started < 90
