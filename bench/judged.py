"""Public judged collections as plain rankers see them: texts, questions, qrels, and both legs' candidates.

A document of SciFact and Cranfield is one text; Chroma's corpora are cut into 800 characters at white space, and a text
is relevant to a question when it holds a part of one of its reference spans.
"""

import csv
import hashlib
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.records import Candidate
from models.embedder import Embedder
from retrieval.analyze import terms

Floats = npt.NDArray[np.float32]

CUT = 800  # characters of a text of Chroma's corpora
K1, B = 1.2, 0.75


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts by position; questions with an id, and the positions of what is relevant to each with its grade."""

    name: str
    texts: tuple[str, ...]
    questions: Mapping[str, str]
    qrels: Mapping[str, Mapping[int, int]]

    def some(self, count: int, texts: int) -> "Judged":
        """The first `count` questions, over their relevant texts and others up to `texts` in all."""
        asked = dict(list(self.questions.items())[:count])
        kept = sorted({position for qid in asked for position in self.qrels[qid]})
        chance = random.Random(0)
        others = sorted(set(range(len(self.texts))) - set(kept))
        kept += chance.sample(others, min(len(others), max(0, texts - len(kept))))
        place = {old: new for new, old in enumerate(kept)}
        qrels = {qid: {place[at]: grade for at, grade in self.qrels[qid].items()} for qid in asked}
        return Judged(self.name, tuple(self.texts[old] for old in kept), asked, qrels)


def read_all(data: Path) -> Iterator[Judged]:
    """SciFact's two parts, Cranfield, and two halves of Chroma's questions."""
    yield read_beir(data / "scifact", "train")
    yield read_beir(data / "scifact", "test")
    yield read_beir(data / "cranfield", "test")
    yield from read_chroma(data / "chroma-chunking")


def read_beir(folder: Path, part: str) -> Judged:
    """A collection in BEIR's layout; a text is title and text."""
    rows = [json.loads(line) for line in (folder / "corpus.jsonl").read_text().splitlines()]
    place = {row["_id"]: position for position, row in enumerate(rows)}
    texts = tuple(f"{row.get('title', '')}\n{row['text']}".strip() for row in rows)
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "queries.jsonl").read_text().splitlines())}
    qrels: dict[str, dict[int, int]] = defaultdict(dict)
    for line in (folder / "qrels" / f"{part}.tsv").read_text().splitlines()[1:]:
        qid, document, grade = line.split("\t")
        if int(grade) > 0 and document in place:
            qrels[qid][place[document]] = int(grade)
    return Judged(f"{folder.name} {part}", texts, {qid: queries[qid] for qid in qrels}, dict(qrels))


def read_chroma(folder: Path) -> tuple[Judged, Judged]:
    """Even and odd questions over all corpora."""
    texts: list[str] = []
    spans: dict[str, list[tuple[int, int, int]]] = {}  # corpus → (start, end, position in texts)
    for file in sorted((folder / "corpora").glob("*.md")):
        content = file.read_text()
        spans[file.stem] = [(start, end, len(texts) + n) for n, (start, end) in enumerate(_cuts(content))]
        texts += [content[start:end] for start, end, _ in spans[file.stem]]
    questions, qrels = {}, {}
    with (folder / "questions.csv").open(newline="") as opened:
        for number, row in enumerate(csv.DictReader(opened)):
            asked = [(each["start_index"], each["end_index"]) for each in json.loads(row["references"])]
            found = {at: 1 for start, end, at in spans[row["corpus_id"]]
                     if any(start < b and a < end for a, b in asked)}  # fmt: skip
            questions[str(number)], qrels[str(number)] = row["question"], found
    train, test = ([qid for qid in questions if int(qid) % 2 == half] for half in (0, 1))

    def part(name: str, chosen: Sequence[str]) -> Judged:
        return Judged(name, tuple(texts), {q: questions[q] for q in chosen}, {q: qrels[q] for q in chosen})

    return part("chroma train", train), part("chroma test", test)


def _cuts(content: str) -> Iterator[tuple[int, int]]:
    start = 0
    while start < len(content):
        end = start + CUT
        if end < len(content):
            end = max(content.rfind(" ", start, end), content.rfind("\n", start, end)) + 1 or end
        yield start, end
        start = end


@dataclass(frozen=True, slots=True)
class Embedded:
    """Of each text its vector and its rotated token vectors: `tokens` [all tokens, bits] in half precision, those of
    text i from starts[i] to starts[i + 1]."""

    vectors: Floats
    tokens: npt.NDArray[np.float16]
    starts: npt.NDArray[np.int64]

    def of(self, position: int) -> npt.NDArray[np.float16]:
        """A text's token vectors [tokens, bits]."""
        return self.tokens[self.starts[position] : self.starts[position + 1]]


def embedded(embedder: Embedder, texts: Sequence[str], cache: Path | None) -> Embedded:
    """Vectors of the texts, from the cache folder when it has them."""
    digest = hashlib.sha256("\0".join((embedder.name, embedder.precision, *texts)).encode()).hexdigest()[:16]
    file = cache / f"{digest}.npz" if cache else None
    if file is None or not file.is_file():
        vectors, tokens = embedder.embed_queries_with_tokens(texts)  # the default model has no prompts
        starts = np.cumsum([0, *map(len, tokens)])
        made = Embedded(vectors, np.concatenate(tokens).astype(np.float16), starts)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez(file, vectors=made.vectors, tokens=made.tokens, starts=made.starts)
        return made
    with np.load(file) as kept:
        return Embedded(kept["vectors"], kept["tokens"], kept["starts"])


class Bm25:
    """BM25 with Lucene's idf over the texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(terms(text)) for text in texts]
        lengths = np.array([sum(count.values()) for count in counts])
        norms = K1 * (1 - B + B * lengths / lengths.mean())
        postings: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for position, count in enumerate(counts):
            for term, tf in count.items():
                postings[term].append((position, tf * (K1 + 1) / (tf + norms[position])))
        self._size = len(texts)
        self._weights: dict[str, tuple[npt.NDArray[np.int64], Floats]] = {}
        for term, found in postings.items():
            idf = math.log(1 + (len(texts) - len(found) + 0.5) / (len(found) + 0.5))
            at, weights = zip(*found, strict=True)
            self._weights[term] = np.array(at), idf * np.array(weights, np.float32)

    def scores(self, question: str) -> Floats:
        """float32 [texts]."""
        total = np.zeros(self._size, np.float32)
        for term in terms(question):
            if term in self._weights:
                at, weights = self._weights[term]
                total[at] += weights
        return total


def best(scores: Floats, count: int) -> list[Candidate]:
    """The candidates of largest score above 0, best first; ties by position."""
    order = np.lexsort((np.arange(len(scores)), -scores))[:count]
    return [Candidate(int(at), float(scores[at])) for at in order if scores[at] > 0]
