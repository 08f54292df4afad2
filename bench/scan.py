"""The replica's scan of vectors by itself, in memory: against a matrix product, for who sees how much.

    python -m bench.scan [--rows 1000000] [--questions 20] [--json FILE]

Synthetic clusters; labels at random. What a search asks of Postgres comes on top: see `bench.filtered_search`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np

from bench.corpora import synthetic
from bench.filtered_search import SHARES, Asked, recall, short, spread
from retrieval.dense import DEPTH
from retrieval.matrix import Place, Threads, compile_loops, matrix_of, nearest


def scans(rows: int, count: int) -> list[dict[str, float]]:
    """So many synthetic rows in memory: each share at random, all by the scan of the replica, against a product."""
    corpus = synthetic(rows)
    halves = corpus.vectors.astype(np.float16).astype(np.float32)
    matrix, ids, threads = matrix_of(halves), np.arange(rows), Threads(os.cpu_count() or 1)
    lines = []
    for share in SHARES:
        mask = np.random.default_rng(6).random(rows) < share
        place, asked, product = Place(matrix, mask, ids), [], []
        for question in corpus.questions[:count]:
            started = time.perf_counter()
            found = nearest([place], question, DEPTH, threads)
            asked.append(Asked([each.chunk_id for each in found], (time.perf_counter() - started) * 1000))
            scores = np.where(mask, halves @ question, -np.inf)
            best = np.argpartition(-scores, DEPTH)[:DEPTH]
            product.append(best[np.argsort(-scores[best])].tolist()[: int(mask.sum())])
        p50, p95 = spread(asked)
        found_of = {f"r@{k}": recall(product, asked, k) for k in (10, 50)}
        lines.append({"rows": rows, "share": share, **found_of, "short": short(product, asked), "p50_ms": p50,
                      "p95_ms": p95})  # fmt: skip
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--questions", type=int, default=20, help="a line")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    compile_loops()
    lines = scans(options.rows, options.questions)
    if options.json:
        options.json.write_text(json.dumps({"cores": os.cpu_count(), "lines": lines}, indent=1))


if __name__ == "__main__":
    main()
