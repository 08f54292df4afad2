"""Where does likeness tell a claim's own source from another? ROC over claims with known sources.

python -m bench.grounding scifact/ [--split test] [--json]

A claim of SciFact with an abstract that experts judged as its evidence is a citation that holds; with the abstract of
another claim it is a swapped one; with the nearest of all other judged abstracts it is the hardest wrong one (some of
those bear the claim out too, and nobody judged that: its false positives are an upper bound). Both ways to compare are
measured: with the nearest sentence, as `citation` measures do (eval/grounding.py), and with the whole passage.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import gettempdir

import numpy as np
import numpy.typing as npt

from eval.collection import read_collection
from eval.grounding import THRESHOLD
from eval.sentences import windows
from models.embedder import Embedder, open_embedder

Floats = npt.NDArray[np.float32]
THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
SHIFT = 17  # a claim's swapped source is that of the claim so many places on


def area(positive: Floats, negative: Floats) -> float:
    """The area under the ROC curve: how often a right pair lies above a wrong one (Mann and Whitney 1947)."""
    ranks = np.concatenate([positive, negative]).argsort().argsort()[: len(positive)] + 1
    above = ranks.sum() - len(positive) * (len(positive) + 1) / 2
    return float(above / (len(positive) * len(negative)))


def likenesses(embedder: Embedder, claims: list[str], texts: list[str]) -> dict[str, Floats]:
    """[claims, texts] by both ways to compare."""
    asked = embedder.embed_documents(claims)
    pieces = [(n, window) for n, text in enumerate(texts) for window in windows(text)]
    near = asked @ embedder.embed_documents([window for _, window in pieces]).T
    nearest = np.full((len(claims), len(texts)), -1, np.float32)
    np.maximum.at(nearest.T, np.array([n for n, _ in pieces]), near.T)
    return {"sentence": nearest, "passage": asked @ embedder.embed_documents(texts).T}


def curves(found: Floats, sources: list[set[int]]) -> dict[str, object]:
    """Areas, and by threshold the shares that pass."""
    one = [min(own) for own in sources]
    swapped_from = [one[(n + SHIFT) % len(one)] for n in range(len(one))]
    right = np.array([found[n, place] for n, own in enumerate(sources) for place in own])
    swapped = np.array([found[n, p] for n, p in enumerate(swapped_from) if p not in sources[n]])
    nearest = np.array([np.delete(row, sorted(sources[n])).max() for n, row in enumerate(found)])
    passing = {
        f"{at:.2f}": [round(float((of >= at).mean()), 3) for of in (right, swapped, nearest)] for at in THRESHOLDS
    }
    return {"pairs": len(right), "area, swapped": round(area(right, swapped), 3),
            "area, nearest": round(area(right, nearest), 3), "passing: right, swapped, nearest": passing}  # fmt: skip


def measure(folder: Path, part: str, embedder: Embedder) -> Mapping[str, object]:
    """The curves of a collection whose questions are claims."""
    collection = read_collection(folder, "test" if part == "test" else "tune")
    texts = {document.external_id: document.content.decode() for document in collection.documents}
    queries = [query for query in collection.golden.queries if query.answerable()]
    used = sorted({name for query in queries for name, grade in query.gains().items() if grade > 0})
    place = {name: n for n, name in enumerate(used)}
    sources = [{place[name] for name, grade in query.gains().items() if grade > 0} for query in queries]
    found = likenesses(embedder, [query.query for query in queries], [texts[name] for name in used])
    return {way: curves(values, sources) for way, values in found.items()}


def main() -> None:
    """Print the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", choices=("test", "train"), default="test")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    embedder = open_embedder("all-MiniLM-L6-v2", Path(gettempdir()) / "citadel-bench-models")
    told = measure(asked.folder, asked.split, embedder)
    if asked.json:
        print(json.dumps({"threshold": THRESHOLD, **told}))
        return
    for way, of in told.items():
        print(way)
        for name, value in of.items() if isinstance(of, dict) else ():
            rows = value.items() if isinstance(value, dict) else ()
            print(f"  {name}" + ("" if rows else f"  {value}"))
            for at, shares in rows:
                print(f"    {at}  " + "  ".join(f"{share:.3f}" for share in shares))


if __name__ == "__main__":
    main()
