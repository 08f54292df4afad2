"""How models come to be loaded: checked, converted once, and without the network."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import Misconfigured, ModelMismatch
from models import minilm, openvino_graph
from models.openvino_encoder import BATCH, batches
from models.sentence_embedder import open_sentence_transformer

ROOT = Path(__file__).parents[2]


def run(code: str, home: Path, **environ: str) -> subprocess.Popen[str]:
    """A fresh interpreter in the repository that runs the code."""
    env = {**os.environ, "HOME": str(home), **environ}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def finished(process: subprocess.Popen[str]) -> str:
    """What it printed, once it has ended well."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


OPEN = """
import json, sys
from pathlib import Path
from models.embedder import open_embedder
before = sorted({"torch", "transformers", "openvino", "tokenizers", "sentence_transformers"} & set(sys.modules))
vector = open_embedder("all-MiniLM-L6-v2", Path(%r), 1).embed_queries(["leave"])[0]
after = sorted({"torch", "transformers", "sentence_transformers"} & set(sys.modules))
print(json.dumps([before, after, sys.modules["openvino_telemetry"] is None, vector.tolist()]))
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model cache, made by two processes that started at once."""
    folder, home = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("home")
    both = [run(OPEN % str(folder), home) for _ in range(2)]
    vectors = [json.loads(finished(process))[3] for process in both]
    assert vectors[0] == vectors[1]
    return folder


def test_two_processes_at_once_make_one_graph(cache: Path) -> None:
    assert len([path for path in cache.iterdir() if path.is_dir()]) == 1


def test_a_warm_start_imports_neither_torch_nor_transformers_and_importing_models_loads_nothing(
    cache: Path, tmp_path: Path
) -> None:
    before, after, _, _ = json.loads(finished(run(OPEN % str(cache), tmp_path)))
    assert (before, after) == ([], [])


def test_openvino_does_not_report_home(cache: Path, tmp_path: Path) -> None:
    *_, blocked, _ = json.loads(finished(run(OPEN % str(cache), tmp_path)))
    assert blocked
    assert list(tmp_path.iterdir()) == []  # its telemetry leaves an identifier in ~/intel


@pytest.fixture
def graph(cache: Path, tmp_path: Path) -> Path:
    """A cached graph of the test's own."""
    (made,) = (path for path in cache.iterdir() if path.is_dir())
    return Path(shutil.copytree(made, tmp_path / made.name))


def test_a_torn_graph_is_made_again(graph: Path) -> None:
    whole = minilm.sha256_of(graph / openvino_graph.BIN)
    with (graph / openvino_graph.BIN).open("r+b") as file:
        file.truncate(1000)
    assert openvino_graph.cached_graph(minilm.wheel_folder(), graph.parent) == graph / openvino_graph.XML
    assert minilm.sha256_of(graph / openvino_graph.BIN) == whole


def test_what_a_killed_process_left_is_cleared_away(graph: Path) -> None:
    partial = graph.rename(graph.with_name(f"{graph.name}.partial"))
    assert openvino_graph.cached_graph(minilm.wheel_folder(), graph.parent) == graph / openvino_graph.XML
    assert not partial.exists()


def test_a_cache_that_cannot_be_written_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misconfigured, match="CITADEL_STATE"):
        openvino_graph.cached_graph(minilm.wheel_folder(), tmp_path / "file" / "models")


@pytest.mark.parametrize("name", sorted(minilm.PUBLISHED))
def test_one_changed_byte_in_the_wheels_files_is_noticed(tmp_path: Path, name: str) -> None:
    for published in minilm.PUBLISHED:
        shutil.copy(minilm.wheel_folder() / published, tmp_path)
    assert minilm.check_published(tmp_path) == tmp_path
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelMismatch, match=name):
        minilm.check_published(tmp_path)


def test_a_missing_file_of_the_wheel_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match="absent"):
        minilm.check_published(tmp_path)


def test_texts_of_one_padded_length_go_together_and_each_goes_once() -> None:
    lengths = [2, 33, 32, 256, 31, *[100] * (BATCH + 1)]
    made = list(batches(lengths))
    assert [(padded, len(positions)) for padded, positions in made] == [
        (32, 3),
        (64, 1),
        (128, BATCH),
        (128, 1),
        (256, 1),
    ]
    assert sorted(position for _, positions in made for position in positions) == list(range(len(lengths)))
    assert all(padded - 32 < lengths[position] <= padded for padded, positions in made for position in positions)


MISSING = """
from pathlib import Path
from core.errors import Misconfigured
from models.embedder import open_embedder
try:
    open_embedder("no-such-owner/no-such-model", Path("unused"))
except Misconfigured as error:
    print(error)
"""


def test_a_model_that_is_not_on_this_machine_says_what_to_set(tmp_path: Path) -> None:
    said = finished(run(MISSING, tmp_path, HF_HUB_OFFLINE="1"))
    assert "no-such-owner/no-such-model" in said
    assert "CITADEL_MODEL" in said


def test_the_models_own_prompts_are_put_before_queries_and_documents(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(minilm.wheel_folder(), tmp_path / "model"))
    settings = {"prompts": {"query": "query: ", "document": "passage: "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    plain, prompted = open_sentence_transformer(str(minilm.wheel_folder())), open_sentence_transformer(str(folder))
    query = plain.embed_documents(["query: leave"]) @ prompted.embed_queries(["leave"])[0]
    document = plain.embed_documents(["passage: leave"]) @ prompted.embed_documents(["leave"])[0]
    other = plain.embed_documents(["leave"]) @ prompted.embed_documents(["leave"])[0]
    assert min(query[0], document[0]) > 0.99999 > 0.99 > other[0]
