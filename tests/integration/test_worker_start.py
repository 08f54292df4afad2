"""A worker process opens nothing that its work does not need."""

import os
import subprocess
import sys
from pathlib import Path

from core.records import Labels
from ingest.schedule import add_folder, request_refresh
from store.pool import writing
from tests.conftest import World

WORK = """
import os, sys, threading
from uuid import UUID
from core.config import load_settings
from ingest.attempt import attempt
from workers.process import pipeline_of

pipeline = pipeline_of(load_settings(os.environ, running_stack=False))
print(attempt(pipeline, UUID(sys.argv[1])))
print(sorted({"torch", "openvino", "transformers", "py3langid", "unstructured"} & sys.modules.keys()))
print(open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split())
"""


def test_a_refresh_opens_neither_model_nor_parser(world: World, maintenance_url: str, tmp_path: Path) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.txt").write_text("the text")
    source = add_folder(world.store, world.tenant_id, "f", {"path": str(tmp_path / "files")}, Labels(), None, 1.0)
    with writing(world.store) as conn:
        conn.execute("UPDATE profiles SET model = 'no model of this name'")
    job_id = request_refresh(world.store, world.tenant_id, source.id)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")}
    environment |= {"CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state")}
    done = subprocess.run([sys.executable, "-c", WORK, str(job_id)], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["done", "[]", "[]"], done.stderr
