"""`citadel eval` on a folder that brings its documents: beside a running stack, and with nothing running."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.place import erase_servers
from tests.acceptance.conftest import ROOT, Stack
from tests.unit.collections_by_hand import beir

NOTHING_RUNS = "no stack runs here: starting a Postgres for this command"


@pytest.fixture
def own_state() -> Iterator[Path]:
    state = Path(tempfile.mkdtemp(prefix="citadel-eval-"))
    state.chmod(0o711)
    yield state
    erase_servers(state / "eval")
    shutil.rmtree(state, ignore_errors=True)


def test_beside_a_running_stack(stack: Stack, tmp_path: Path) -> None:
    folder = str(beir(tmp_path))
    told = json.loads(stack.citadel("eval", "run", folder, "--json"))
    assert told["measures"]["nDCG@10"] == 1.0  # `what lifts?`, of three documents one of which lifts
    (table,) = json.loads(stack.citadel("eval", "legs", folder, "--json"))["tables"]
    assert table["documents"] == table["passages"] == 3 and len(table["rows"]) == 10


def test_with_nothing_running(own_state: Path, tmp_path: Path) -> None:
    folder = str(beir(tmp_path))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")}
    environment |= {"CITADEL_STATE": str(own_state), "CITADEL_MODEL": "fake"}

    def legs(*more: str) -> tuple[Any, str]:
        command = [sys.executable, "-m", "cli.main", "eval", "legs", folder, "--json", *more]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout), done.stderr

    first, said = legs("--progress")
    assert NOTHING_RUNS in said and "indexing beir" in said and "beir, dense" in said
    again, said = legs("--progress")
    assert again == first
    assert NOTHING_RUNS in said and "indexing" not in said and "beir, dense" not in said  # held, and kept
    weights, said = legs("--progress", "--weights", "0.15")
    assert weights["tables"][0]["rows"][3]["name"] == "convex 0.15" and "beir, dense" not in said
    assert not (own_state / "eval" / "postgres" / "postmaster.pid").exists()
