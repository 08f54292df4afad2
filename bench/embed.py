"""Chunks a second of the shipped embedder against plain sentence-transformers on torch, interleaved in one run.

    python -m bench.embed [--texts 512] [--rounds 3] [--threads 2] [--json]

Both get the same texts: chunks that the shipped chunker makes of markdown files, with their prefixes. Torch runs with
its defaults (batches of 32) and with the batch size that is best for it here. Beside both stands the floor: the same
multiplications at the speed of one large matrix product on this machine.
"""

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import Unparseable
from ingest.chunk import ChunkBudget, chunk
from ingest.parse import parse
from models.embedder import Embedder, open_embedder
from models.minilm import NAME, wheel_folder
from models.openvino_graph import load_openvino

ROOT = Path(__file__).resolve().parents[1]
CORPORA = (ROOT.parent / "shared" / "data" / "enterprise", ROOT / "examples" / "acme" / "files")
LAYERS, WIDTH, INNER = 6, 384, 1536  # all-MiniLM-L6-v2
BLOCK = 128  # texts that a contender gets at once; torch sorts them by length before it pads
TORCH_BATCHES = (1, 4, 8, 16, 64)  # beside its default, 32

Embed = Callable[[Sequence[str]], npt.NDArray[np.float32]]


def main() -> None:
    """Print the figures; exit 1 when the ratio or the agreement misses what the project promises."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--texts", type=int, default=512)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--json", action="store_true", help="one object instead of lines")
    chosen = options.parse_args()
    figures = measure(chosen.texts, chosen.rounds, chosen.threads)
    print(json.dumps(figures) if chosen.json else "\n".join(f"{name:34} {value}" for name, value in figures.items()))
    sys.exit(0 if figures["ratio"] >= 3 and figures["mean_cosine"] >= 0.999 else 1)


def measure(count: int, rounds: int, threads: int) -> dict[str, Any]:
    """Every figure by name."""
    with tempfile.TemporaryDirectory() as cache:
        shipped = open_embedder(NAME, Path(cache), threads)
        exact = open_embedder(NAME, Path(cache), threads, "f32")
    texts = chunks_of_files(shipped, count)
    torch_default, torch_best, best_batch = torch_contenders(texts, threads)
    contenders: dict[str, Embed] = {
        "shipped": shipped.embed_documents,
        "shipped_f32": exact.embed_documents,
        "torch_default": torch_default,
        "torch_best": torch_best,
    }
    seconds, vectors = race(contenders, texts, rounds)
    speed = {name: count / spent for name, spent in seconds.items()}
    cosine = (vectors["shipped"] * vectors["torch_default"]).sum(axis=1)
    cosine_f32 = (vectors["shipped_f32"] * vectors["torch_default"]).sum(axis=1)
    lengths = [min(tokens + 2, shipped.max_tokens) for tokens in shipped.count_tokens(texts)]
    floor = multiplications(lengths) / peak(shipped.precision, threads)
    return {
        "machine": f"{processor()}, {threads} threads",
        "texts": count,
        "mean_tokens": round(sum(lengths) / count, 1),
        "precision": shipped.precision,
        **{f"{name}_chunks_per_s": round(value, 1) for name, value in speed.items()},
        "torch_best_batch": best_batch,
        "tokens_per_s": round(sum(lengths) / count * speed["shipped"]),
        "ratio": round(speed["shipped"] / speed["torch_default"], 2),
        "ratio_to_torch_best": round(speed["shipped"] / speed["torch_best"], 2),
        "ratio_f32": round(speed["shipped_f32"] / speed["torch_default"], 2),
        "ratio_f32_to_torch_best": round(speed["shipped_f32"] / speed["torch_best"], 2),
        "mean_cosine": round(float(cosine.mean()), 6),
        "min_cosine": round(float(cosine.min()), 6),
        "min_cosine_f32": round(float(cosine_f32.min()), 6),
        "floor_chunks_per_s": round(count / floor, 1),
        "times_the_floor": round(count / floor / speed["shipped"], 2),
    }


def chunks_of_files(embedder: Embedder, count: int) -> list[str]:
    """`count` texts as ingestion embeds them, from markdown files in an order that is always the same."""
    corpus = next(folder for folder in CORPORA if folder.is_dir())
    files = sorted(corpus.rglob("*.md"))
    random.Random(0).shuffle(files)
    texts: list[str] = []
    for file in files:
        try:
            parsed = parse(file.read_bytes(), "text/markdown")
        except Unparseable:
            continue
        for piece in chunk(parsed, parsed.title, "structure", ChunkBudget(), embedder):
            texts.append(f"{piece.embed_prefix}\n{parsed.text[piece.start : piece.end]}".lstrip())
        if len(texts) >= count:
            return texts[:count]
    raise SystemExit(f"{corpus} yields {len(texts)} chunks: ask for fewer with --texts")


def torch_contenders(texts: Sequence[str], threads: int) -> tuple[Embed, Embed, int]:
    """Plain sentence-transformers with its defaults, with the best batch size for it here, and that size."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(wheel_folder()), device="cpu", local_files_only=True)

    def embed(batch: int) -> Embed:
        return lambda texts: np.asarray(model.encode([*texts], batch_size=batch, show_progress_bar=False), np.float32)

    seconds, _ = race({str(batch): embed(batch) for batch in (32, *TORCH_BATCHES)}, texts[:64], 3)
    best = min(seconds, key=lambda batch: seconds[batch])
    return (
        lambda texts: np.asarray(model.encode([*texts], show_progress_bar=False), np.float32),
        embed(int(best)),
        int(best),
    )


def race(
    contenders: dict[str, Embed], texts: Sequence[str], rounds: int
) -> tuple[dict[str, float], dict[str, npt.NDArray[np.float32]]]:
    """Seconds for all texts by contender, and their vectors.

    They take turns at blocks of texts, and of each block the best round counts: what else the machine does in between
    hits one block of one contender and not the whole of it.
    """
    blocks = [texts[start : start + BLOCK] for start in range(0, len(texts), BLOCK)]
    best = {name: [float("inf")] * len(blocks) for name in contenders}
    made: dict[str, list[npt.NDArray[np.float32]]] = {}
    for _ in range(rounds):
        made = {name: [] for name in contenders}
        for number, block in enumerate(blocks):
            for name, embed in contenders.items():
                started = time.perf_counter()
                made[name].append(embed(block))
                best[name][number] = min(best[name][number], time.perf_counter() - started)
    return {name: sum(times) for name, times in best.items()}, {name: np.concatenate(of) for name, of in made.items()}


def multiplications(lengths: Sequence[int]) -> float:
    """Floating-point operations of the encoder for texts of these token counts, without padding, 2 a multiply-add."""
    per_token = 2 * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
    return float(sum(length * (per_token + 4 * LAYERS * length * WIDTH) for length in lengths))


def peak(precision: str, threads: int) -> float:
    """Operations a second of one large matrix product in that precision, the best of many runs."""
    openvino = load_openvino()
    ops = openvino.opset13
    left = ops.parameter([2048, WIDTH], openvino.Type.f32)
    weights = ops.constant(np.random.default_rng(0).standard_normal((WIDTH, INNER)).astype(np.float32))
    model = openvino.Model([ops.matmul(left, weights, False, False)], [left])
    options = {"INFERENCE_PRECISION_HINT": precision, "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()
    values = np.ones((2048, WIDTH), np.float32)
    best = float("inf")
    for _ in range(200):
        started = time.perf_counter()
        request.infer([values], share_inputs=True, share_outputs=True)
        best = min(best, time.perf_counter() - started)
    return 2 * 2048 * WIDTH * INNER / best


def processor() -> str:
    """The processor as the kernel names it."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    main()
