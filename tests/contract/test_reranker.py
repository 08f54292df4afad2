"""What every reranker holds to: late interaction over the fake's and the default model's codes, and a cross-encoder."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pytest

from core.records import AccessScope
from models.embedder import Embedder, open_embedder
from models.fake_embedder import FakeEmbedder
from models.minilm import CONFIG, TOKENIZER, wheel_folder
from models.reranker import CrossEncoderReranker, LateInteraction, Proposed, Question, Reranker
from retrieval.questions import Questions

WORDS = ["leave", "budget", "server", "policy", "travel", "invoice", "limit", "request", "Größe", "東京", "and", "the"]


def asked(query: str, embedder: Embedder) -> Question:
    """The question as a search asks it."""
    return Question(query, lambda: Questions().tokens(embedder, AccessScope(UUID(int=1), "user:ana", (), 1), query))


@dataclass(frozen=True, slots=True)
class Case:
    """A reranker, and the embedder whose codes it reads."""

    reranker: Reranker
    embedder: Embedder

    def score(self, query: str, texts: Sequence[str]) -> list[float | None]:
        """Of these texts, with the codes that are stored for them."""
        _, codes = self.embedder.embed_documents_with_tokens(texts)
        return self.reranker.score(asked(query, self.embedder), list(map(Proposed, texts, codes)))


@pytest.fixture(scope="session")
def small_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder of two layers with random weights: enough to see what moves its scores."""
    import torch
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("cross")
    torch.manual_seed(0)
    shape = BertConfig.from_json_file(wheel_folder() / CONFIG)
    shape.num_hidden_layers, shape.num_labels = 2, 1
    BertForSequenceClassification(shape).save_pretrained(folder)
    words = Tokenizer.from_file(str(wheel_folder() / TOKENIZER))
    words.no_padding()
    words.no_truncation()
    save: Callable[..., object] = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words, model_max_length=512, pad_token="[PAD]"
    ).save_pretrained
    save(folder)
    return folder


@pytest.fixture(scope="session", params=["late, fake", "late, openvino", "cross-encoder"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Each of them."""
    if request.param == "cross-encoder":
        folder = request.getfixturevalue("small_cross_encoder")
        return Case(CrossEncoderReranker(str(folder)), open_embedder("fake", folder))
    model = "all-MiniLM-L6-v2" if request.param == "late, openvino" else "fake"
    return Case(LateInteraction(), open_embedder(model, tmp_path_factory.mktemp("models"), 2))


def varied(count: int, seed: int) -> list[str]:
    """Texts of every length."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, 300))) for _ in range(count)]


def test_a_float_a_passage(case: Case) -> None:
    scores = case.score("the budget", varied(7, 0))
    assert len(scores) == 7 and all(isinstance(score, float) and np.isfinite(score) for score in scores)
    assert case.score("the budget", []) == []


def test_neighbours_and_their_number_move_no_bit(case: Case) -> None:
    texts = varied(12, 1)
    together = case.score("travel policy limit", [*varied(9, 2), *texts])[9:]
    assert together == [case.score("travel policy limit", [text])[0] for text in texts]
    assert together[::-1] == case.score("travel policy limit", texts[::-1])


def test_equal_passages_score_equally(case: Case) -> None:
    one, other, again = case.score("server", ["the server", "a budget", "the server"])
    assert one == again != other


def test_what_is_asked_for_scores_higher(case: Case) -> None:
    if isinstance(case.reranker, CrossEncoderReranker):
        pytest.skip("random weights know no meaning")
    near, far = case.score("travel budget", ["the travel budget of the year", "Größe 東京 server"])
    assert near is not None and far is not None and near > far


def test_without_a_code_or_a_token_there_is_no_late_score(tmp_path: Path) -> None:
    embedder = open_embedder("fake", tmp_path)
    (code,) = embedder.embed_documents_with_tokens(["the budget"])[1]
    passages = [Proposed("x", None), Proposed("the budget", code), Proposed("", b"")]
    first, second, third = LateInteraction().score(asked("budget", embedder), passages)
    assert (first, third) == (None, None) and second is not None
    assert LateInteraction().score(asked(" ", embedder), passages) == [None] * 3
    assert LateInteraction().score(asked("budget", NoTokens()), passages) == [None] * 3


class NoTokens(FakeEmbedder):
    """A model without token vectors."""

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        return self.embed_queries(texts), []
