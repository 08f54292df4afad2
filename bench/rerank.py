"""What reranking gains, and what it costs: none, late interaction over each kind of code, and a cross-encoder's shape.

    python -m bench.rerank [--data ../shared/data/retrieval] [--texts 400] [--questions 40] [--pools 20 50 100]
                           [--weights 0.5] [--timed 400] [--cache FOLDER] [--json PATH]

Quality is nDCG@10 by ir-measures over both legs' convex combination, reranked and blended as the product does; 0 texts
or questions means all. Time is that of a question: the codes of the pool read from Postgres under row-level security as
the application's role, and scored; of several rounds the best counts. The cross-encoder has the size of a six-layer
MiniLM and random weights: its time is that of a trained one, and of its quality nothing is said.
"""

import argparse
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, median
from uuid import UUID

import ir_measures
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from bench.judged import Bm25, Embedded, Floats, Judged, best, embedded, read_all
from bench.world import Bench, Rows, bench_database, fill, server_url, unit_vectors
from core.labels import make_labels
from core.records import FusedCandidate, Principal
from models.embedder import Embedder, open_embedder
from models.minilm import CONFIG, NAME, TOKENIZER, wheel_folder
from models.reranker import CrossEncoderReranker, Proposed, Question
from models.token_codes import encode, maxsim
from retrieval.fuse import convex
from retrieval.rerank import LATE_WEIGHT, blend
from store import access, tokens
from store.migrate import as_owner
from store.pool import reading_tenant, writing

ROOT = Path(__file__).resolve().parents[1]
LEG = 200  # candidates a leg proposes
REPEATS = 30  # questions timed
ROUNDS = 5  # of each question: what else the machine does in between hits some of them
CROSS_REPEATS = 3
CROSS = "cross-encoder, random"
IN_ORDER = """
    SELECT c.id, c.document_id FROM chunks c JOIN documents d ON d.id = c.document_id ORDER BY d.external_id
"""

Half = npt.NDArray[np.float16]
Score = Callable[[Floats, Sequence[bytes]], npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of code: how a text's rotated token vectors [tokens, 384] are kept, and how they are scored."""

    name: str
    make: Callable[[Half], bytes]
    score: Score


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table."""

    reranker: str
    pool: int
    weight: float
    ndcg: Mapping[str, float]  # by collection
    gain: float | None  # mean over the collections, against none
    ms: float  # p50 of reading and scoring, in this run
    gain_per_ms: float | None  # in thousandths of nDCG
    bytes_a_chunk: int  # stored


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a question: p50 in ms; and what is stored for a chunk, on the mean."""

    ms: float
    bytes_a_chunk: int


def exact(question: Floats, codes: Sequence[bytes], kind: type, scale: float) -> npt.NDArray[np.float64]:
    """MaxSim over vectors that are kept as numbers of that kind."""
    kept: list[npt.NDArray[np.generic]] = [np.frombuffer(code, kind).reshape(-1, question.shape[1]) for code in codes]
    products = question @ np.concatenate(kept).astype(np.float32).T
    starts = np.cumsum([0, *map(len, kept[:-1])])
    best = np.maximum.reduceat(products, starts, axis=1).astype(np.float64)
    return np.asarray(best.mean(axis=0) / scale, np.float64)


def signs(bits: int) -> Kind:
    """The signs of the first components."""
    return Kind(
        f"{bits} sign bits",
        lambda rotated: encode(rotated[:, :bits].astype(np.float32)),
        lambda question, codes: maxsim(np.ascontiguousarray(question[:, :bits]), codes),
    )


KINDS = (
    Kind("float16", lambda rotated: rotated.tobytes(), lambda q, c: exact(q, c, np.float16, 1)),
    Kind("int8", lambda rotated: np.rint(rotated.astype(np.float32) * 254).clip(-127, 127).astype(np.int8).tobytes(),
         lambda q, c: exact(q, c, np.int8, 254)),
    signs(384),
    signs(192),
    signs(128),
)  # fmt: skip


# --- quality ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """A question with the fused candidates, best first, and for each kind of code the scores of the first of them."""

    qid: str
    fused: list[FusedCandidate]
    scores: Mapping[str, list[float]]


def ask_all(judged: Judged, embedder: Embedder, cache: Path | None, depth: int) -> list[Asked]:
    """Every question over the collection."""
    texts, questions = (embedded(embedder, of, cache) for of in (judged.texts, [*judged.questions.values()]))
    bm25, codes = Bm25(judged.texts), Codes(texts)
    asked = []
    for number, (qid, question) in enumerate(judged.questions.items()):
        dense = best(texts.vectors @ questions.vectors[number], LEG)
        fused = convex(dense, best(bm25.scores(question), LEG))[:LEG]
        vectors = questions.of(number).astype(np.float32)
        pool = [candidate.chunk_id for candidate in fused[:depth]]
        scores = {kind.name: kind.score(vectors, codes.of(kind, pool)).tolist() for kind in KINDS}
        asked.append(Asked(qid, fused, scores))
    return asked


class Codes:
    """The codes of a collection's texts, made when first asked for."""

    def __init__(self, texts: Embedded) -> None:
        self._texts = texts
        self._made: dict[tuple[str, int], bytes] = {}

    def of(self, kind: Kind, positions: Sequence[int]) -> list[bytes]:
        """Those of the texts."""
        if kind.name == "float16":  # as large as what they are made from
            return [kind.make(self._texts.of(at)) for at in positions]
        for at in positions:
            if (kind.name, at) not in self._made:
                self._made[kind.name, at] = kind.make(self._texts.of(at))
        return [self._made[kind.name, at] for at in positions]


def ndcg(judged: Judged, runs: Mapping[str, Sequence[FusedCandidate]]) -> float:
    """nDCG@10, the mean over the questions."""
    qrels = [
        ir_measures.Qrel(qid, str(at), grade) for qid, found in judged.qrels.items() for at, grade in found.items()
    ]
    run = [ir_measures.ScoredDoc(qid, str(c.chunk_id), -float(rank))
           for qid, ranked in runs.items() for rank, c in enumerate(ranked[:10])]  # fmt: skip
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10])


def quality(judged: Judged, asked: Sequence[Asked], kind: str, pool: int, weight: float) -> float:
    """nDCG@10 of the blend."""
    return ndcg(judged, {one.qid: blend(one.fused, one.scores[kind][:pool], weight) for one in asked})


# --- time ---------------------------------------------------------------------------------------------------------


def times(judged: Judged, embedder: Embedder, cache: Path | None, pools: Sequence[int]) -> dict[tuple[str, int], Cost]:
    """What each reranker costs at each pool, over the collection's texts in a database of its own."""
    texts, questions = (embedded(embedder, of, cache) for of in (judged.texts, [*judged.questions.values()]))
    vectors = [questions.of(n).astype(np.float32) for n in range(min(REPEATS, len(judged.questions)))]
    with server_url() as server, bench_database(server, "bench_rerank") as bench:
        chunk_ids = stored(bench, len(judged.texts))
        costs = {}
        for kind in KINDS:
            codes = [kind.make(texts.of(at)) for at in range(len(judged.texts))]
            keep(bench, chunk_ids, codes)
            size = round(fmean(map(len, codes)))
            for pool in pools:
                costs[kind.name, pool] = Cost(late_ms(bench, kind, vectors, [*chunk_ids], pool), size)
    return costs | cross_encoder_costs(judged, pools)


def stored(bench: Bench, count: int) -> dict[int, UUID]:
    """Public documents of one chunk each, in order: chunk id → document id."""
    with writing(bench.store) as conn:
        label_set = access.intern_labels(conn, bench.tenant_id, make_labels(["public"]))
    names = [f"d{number:07}" for number in range(count)]
    fill(bench, Rows(names, [label_set] * count, names, unit_vectors(count, bench.profile.dimensions, 0)))
    with writing(bench.store) as conn:
        return dict(conn.execute(IN_ORDER).fetchall())


def keep(bench: Bench, chunk_ids: Mapping[int, UUID], codes: Sequence[bytes]) -> None:
    """Put these codes in the place of those that are there."""
    with as_owner(bench.admin_url) as conn:
        conn.execute("TRUNCATE tokens_1")
    with writing(bench.store) as conn:
        for (chunk_id, document_id), code in zip(chunk_ids.items(), codes, strict=True):
            tokens.add(conn, bench.profile.id, document_id, {chunk_id: code})
    with as_owner(bench.admin_url) as conn:
        conn.execute("ANALYZE tokens_1")


def late_ms(bench: Bench, kind: Kind, questions: Sequence[Floats], chunk_ids: Sequence[int], pool: int) -> float:
    """p50 over the questions of reading the codes of a random pool and scoring them, of each the best of ROUNDS."""
    chance, spent = random.Random(pool), []
    with reading_tenant(bench.store, bench.tenant_id) as conn:
        access.enter_scope(conn, Principal(bench.tenant_id, "user:ana"))
        for question in questions:
            wanted = chance.sample(chunk_ids, pool)
            rounds = []
            for _ in range(ROUNDS):
                started = time.perf_counter()
                codes = tokens.read(conn, bench.profile.id, wanted)
                kind.score(question, [codes[chunk_id] for chunk_id in wanted])
                rounds.append(time.perf_counter() - started)
            spent.append(min(rounds))
    return median(spent) * 1000


def cross_encoder_costs(judged: Judged, pools: Sequence[int]) -> dict[tuple[str, int], Cost]:
    """Of a cross-encoder of six layers and 384 dimensions with random weights."""
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    with tempfile.TemporaryDirectory() as folder:
        shape = BertConfig.from_json_file(wheel_folder() / CONFIG)
        shape.num_labels = 1
        BertForSequenceClassification(shape).save_pretrained(folder)
        words = Tokenizer.from_file(str(wheel_folder() / TOKENIZER))
        words.no_padding()
        words.no_truncation()
        PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=512, pad_token="[PAD]").save_pretrained(folder)
        reranker = CrossEncoderReranker(folder)
    costs = {}
    for pool in pools:
        spent = []
        for number, text in enumerate([*judged.questions.values()][:CROSS_REPEATS]):
            passages = [Proposed(each) for each in random.Random(number).sample(judged.texts, pool)]
            started = time.perf_counter()
            reranker.score(Question(text, lambda: np.empty((0, 0))), passages)
            spent.append(time.perf_counter() - started)
        costs[CROSS, pool] = Cost(min(spent) * 1000, 0)
    return costs


# --- the table ----------------------------------------------------------------------------------------------------


def measure(chosen: argparse.Namespace) -> list[Line]:
    """Every row."""
    with tempfile.TemporaryDirectory() as folder:
        embedder = open_embedder(NAME, (chosen.cache or Path(folder)) / "models")
    parts = [
        judged.some(chosen.questions or len(judged.questions), chosen.texts or len(judged.texts))
        for judged in read_all(chosen.data)
    ]
    asked = {part.name: ask_all(part, embedder, chosen.cache, max(chosen.pools)) for part in parts}
    timed = next(read_all(chosen.data)).some(REPEATS, max(chosen.timed, *chosen.pools))
    costs = times(timed, embedder, chosen.cache, chosen.pools)
    none = {part.name: ndcg(part, {one.qid: one.fused for one in asked[part.name]}) for part in parts}
    lines = [Line("none", 0, 0.0, none, 0.0, 0.0, None, 0)]
    for kind, pool, weight in itertools.product(KINDS, chosen.pools, chosen.weights):
        told = {part.name: quality(part, asked[part.name], kind.name, pool, weight) for part in parts}
        gain, cost = fmean(told.values()) - fmean(none.values()), costs[kind.name, pool]
        lines.append(Line(kind.name, pool, weight, told, gain, cost.ms, 1000 * gain / cost.ms, cost.bytes_a_chunk))
    return [*lines, *(Line(CROSS, pool, 1.0, {}, None, costs[CROSS, pool].ms, None, 0) for pool in chosen.pools)]


def table(lines: Sequence[Line]) -> Iterator[str]:
    """For people: nDCG@10 by collection, the mean gain and its thousandths a millisecond, p50, bytes a chunk."""
    names = [*lines[0].ndcg]
    heads = "".join(f"{name:>15}" for name in names)
    yield f"{'':22}{'pool':>5}{'weight':>7}{heads}{'gain':>8}{'ms':>8}{'a ms':>8}{'bytes':>8}"
    for line in lines:
        told = "".join(f"{line.ndcg[name]:15.4f}" if line.ndcg else f"{'-':>15}" for name in names)
        gain, rate = ("-" if each is None else f"{each:.4f}" for each in (line.gain, line.gain_per_ms))
        cost = f"{gain:>8}{line.ms:8.2f}{rate:>8}{line.bytes_a_chunk:8}"
        yield f"{line.reranker:22}{line.pool:5}{line.weight:7.2f}{told}{cost}"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "retrieval")
    options.add_argument("--texts", type=int, default=400, help="of each collection")
    options.add_argument("--questions", type=int, default=40, help="of each part")
    options.add_argument("--pools", type=int, nargs="+", default=[20, 50, 100])
    options.add_argument("--weights", type=float, nargs="+", default=[LATE_WEIGHT])
    options.add_argument("--timed", type=int, default=400, help="texts in the database that times are taken on")
    options.add_argument("--cache", type=Path, help="a folder to keep embeddings in")
    options.add_argument("--json", type=Path, help="write the figures there too")
    chosen = options.parse_args()
    if not chosen.data.is_dir():
        print(f"nothing is measured: there are no judged collections in {chosen.data}; name their folder with --data")
        return
    threadpool_limits(1, "blas")  # as `citadel api`
    lines = measure(chosen)
    print("\n".join(table(lines)))
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(line) for line in lines], indent=1))


if __name__ == "__main__":
    main()
