"""What every embedder holds to: the fake, the default on OpenVINO, and sentence-transformers on torch."""

import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from sentence_transformers import SentenceTransformer

from core.errors import Misconfigured, ModelMismatch
from models.embedder import Embedder, open_embedder
from models.minilm import wheel_folder
from models.token_codes import encode, rotation

TEXTS = [
    "The rate limit is 600 requests a minute.",
    "",
    "Größe, naïve café; 東京の天気; привет мир; 🙂🙃",
    "x",
    " \n\t ",
    "Employees accrue 25 days of leave each year. " * 12,
    "[PAD] [SEP] special tokens in a text",
    "very long " * 4000,
]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model cache for all tests here: converting takes some seconds."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session", params=["fake", "openvino f32", "openvino", "sentence-transformers"])
def embedder(request: pytest.FixtureRequest, cache: Path) -> Embedder:
    """Each implementation; `openvino` alone in the precision that this processor prefers."""
    kind, _, precision = request.param.partition(" ")
    name = {"openvino": "all-MiniLM-L6-v2", "sentence-transformers": str(wheel_folder())}.get(kind, kind)
    return open_embedder(name, cache, 2, precision or None)


def cosines(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    return np.einsum("nd,nd->n", a.astype(np.float64), b.astype(np.float64))


SPECIAL = {"fake": (), "all-MiniLM-L6-v2": ("[CLS]", "[SEP]")}  # tokens that take room and have no code
WORDS = ["leave", "budget", "server", "the", "of", "and", "München", "42", "review,", "policy.", "漢字", "pH-value"]


def varied(count: int, seed: int = 0, longest: int = 200) -> list[str]:
    """Texts of every length; the longest words are beyond the window."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, longest))) for _ in range(count)]


@pytest.mark.parametrize("role", ["embed_documents", "embed_queries"])
def test_one_vector_of_unit_length_a_text(embedder: Embedder, role: str) -> None:
    vectors = getattr(embedder, role)(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_no_texts_no_vectors(embedder: Embedder) -> None:
    assert embedder.embed_documents([]).shape == (0, embedder.dimensions)
    assert embedder.count_tokens([]) == []


def test_vectors_come_in_the_order_of_the_texts(embedder: Embedder) -> None:
    texts = varied(50, longest=50)
    order = random.Random(1).sample(range(50), 50)
    shuffled = embedder.embed_documents([texts[position] for position in order])
    np.testing.assert_allclose(shuffled, embedder.embed_documents(texts)[order], atol=1e-5)


def test_neighbours_and_batch_size_do_not_move_a_vector(embedder: Embedder) -> None:
    texts = varied(20, seed=2)
    alone = np.concatenate([embedder.embed_documents([text]) for text in texts])
    together = embedder.embed_documents([*varied(20, seed=3), *texts])[20:]
    if embedder.name in ("fake", "all-MiniLM-L6-v2"):
        np.testing.assert_array_equal(alone, together)
    else:  # sentence-transformers pads to the longest text of a batch: float32 rounding, measured 2e-7
        np.testing.assert_allclose(alone, together, atol=2e-6)


def test_one_pass_gives_the_same_vectors_with_their_tokens(embedder: Embedder) -> None:
    texts = [*TEXTS, *varied(20, seed=6)]
    vectors, codes = embedder.embed_documents_with_tokens(texts)
    asked, tokens = embedder.embed_queries_with_tokens(texts)
    np.testing.assert_array_equal(vectors, embedder.embed_documents(texts))
    np.testing.assert_array_equal(asked, embedder.embed_queries(texts))
    assert embedder.embed_documents_with_tokens([])[1] == embedder.embed_queries_with_tokens([])[1] == []
    if embedder.token_bits == 0:
        assert codes == [] and tokens == []
        return
    words = [min(count, embedder.max_tokens - len(SPECIAL[embedder.name])) for count in embedder.count_tokens(texts)]
    assert [len(code) * 8 / embedder.token_bits for code in codes] == words
    assert [of_text.shape for of_text in tokens] == [(count, embedder.token_bits) for count in words]
    for code, of_text in zip(codes, tokens, strict=True):
        # The question's side and the passage's are under one rotation. Another padding moves a sign in 400 in bf16;
        # another rotation would move every second.
        bits = np.unpackbits(np.frombuffer(code, np.uint8)) != np.unpackbits(np.frombuffer(encode(of_text), np.uint8))
        assert bits.sum() <= (0.01 * len(bits) if embedder.name == "all-MiniLM-L6-v2" else 0)
        np.testing.assert_allclose(np.linalg.norm(of_text, axis=1), 1, atol=0.01)


def test_neighbours_and_batch_size_do_not_move_a_code(embedder: Embedder) -> None:
    texts = varied(20, seed=2)
    alone = [embedder.embed_documents_with_tokens([text])[1] for text in texts]
    together = embedder.embed_documents_with_tokens([*varied(20, seed=3), *texts])[1][20:]
    assert together == [code for codes in alone for code in codes]


def test_the_rotated_tokens_are_the_models(cache: Path) -> None:
    """Turned back, they are the last hidden states that sentence-transformers gives, but for special tokens."""
    texts = [TEXTS[0], TEXTS[2], *varied(5, seed=7, longest=100)]
    ours = open_embedder("all-MiniLM-L6-v2", cache, None, "f32")
    _, tokens = ours.embed_queries_with_tokens(texts)
    model = SentenceTransformer(str(wheel_folder()), device="cpu")
    for text, of_text in zip(texts, tokens, strict=True):
        states = model.encode([text], output_value="token_embeddings", show_progress_bar=False)[0].numpy()
        states /= np.linalg.norm(states, axis=1, keepdims=True)
        assert cosines(of_text @ rotation(384), states[1:-1]).min() >= 0.9999


def test_eight_threads_get_what_one_gets(embedder: Embedder) -> None:
    batches = [varied(5, seed, longest=60) for seed in range(16)]
    serial = [embedder.embed_documents(batch) for batch in batches]
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(embedder.embed_documents, batches))
        counts = list(pool.map(embedder.count_tokens, batches))
    for one, other in zip(serial, parallel, strict=True):
        np.testing.assert_array_equal(one, other)
    assert counts == [embedder.count_tokens(batch) for batch in batches]


def test_nearer_in_meaning_is_nearer_in_space(embedder: Embedder) -> None:
    query = embedder.embed_queries(["how many days of leave"])
    near, far = embedder.embed_documents(["25 days of leave a year, many more", "the server returns an error"])
    assert query[0] @ near > query[0] @ far


def test_tokens_are_counted_without_special_ones_and_lie_inside_the_text(embedder: Embedder) -> None:
    for text, count in zip(TEXTS, embedder.count_tokens(TEXTS), strict=True):
        offsets = embedder.token_offsets(text)
        assert len(offsets) == count
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert offsets == sorted(offsets)
    assert embedder.count_tokens(["", "hello world", "very long " * 4000]) == [0, 2, 8000]
    assert [TEXTS[2][slice(*span)] for span in embedder.token_offsets(TEXTS[2])[-1:]] in (["🙂🙃"], ["🙃"])


def test_what_is_beyond_the_window_does_not_move_the_vector(embedder: Embedder) -> None:
    kept = "leave " * (embedder.max_tokens + 10)
    one, other = embedder.embed_documents([kept, kept + "server " * 500])
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_model_that_was_opened_is_named(embedder: Embedder) -> None:
    assert embedder.precision in ("f32", "bf16")
    assert embedder.name in ("fake", "all-MiniLM-L6-v2", str(wheel_folder()))
    assert 0 < embedder.dimensions <= 384
    assert embedder.max_tokens == 256


@pytest.mark.parametrize(("precision", "least"), [("f32", 0.99999), (None, 0.999)])
def test_openvino_agrees_with_sentence_transformers(cache: Path, precision: str | None, least: float) -> None:
    texts = [*TEXTS, *varied(30, seed=4)]
    reference = open_embedder(str(wheel_folder()), cache).embed_documents(texts)
    ours = open_embedder("all-MiniLM-L6-v2", cache, None, precision).embed_documents(texts)
    assert cosines(ours, reference).min() >= least


def test_the_number_of_threads_moves_no_bit(cache: Path) -> None:
    texts = varied(30, seed=5)
    one, two = (open_embedder("all-MiniLM-L6-v2", cache, threads).embed_documents(texts) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_the_hubs_name_of_the_default_model_is_the_wheels(cache: Path) -> None:
    assert open_embedder("sentence-transformers/all-MiniLM-L6-v2", cache).name == "all-MiniLM-L6-v2"


@pytest.mark.parametrize("model", ["fake", str(wheel_folder())])
def test_a_precision_that_the_profile_does_not_name_is_refused(cache: Path, model: str) -> None:
    with pytest.raises(ModelMismatch, match="computes in f32, the profile says bf16"):
        open_embedder(model, cache, None, "bf16")


def test_a_folder_without_a_model_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="CITADEL_MODEL"):
        open_embedder(str(tmp_path), tmp_path)


def test_a_model_that_was_opened_needs_its_files_no_more(cache: Path, tmp_path: Path) -> None:
    """Graphs are compiled when they are first needed, which may be after somebody cleared the cache."""
    open_embedder("all-MiniLM-L6-v2", cache, None, "f32")  # converted once
    own = Path(shutil.copytree(cache, tmp_path / "models"))
    embedder = open_embedder("all-MiniLM-L6-v2", own, None, "f32")
    shutil.rmtree(own)
    texts = ["how many days of leave", "how many days of parental leave " * 20]
    assert cosines(embedder.embed_queries(texts), embedder.embed_documents(texts)).min() >= 0.9999
