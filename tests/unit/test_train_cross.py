"""A cross-encoder learns, goes on after an interruption, and is opened by what serves it; tiny, with random weights."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import Misconfigured
from models.reranker import Proposed, Question
from models.train_cross import Examples, train_cross_encoder
from models.trained import MODEL, digest_of, open_trained

pytest.importorskip("datasets")
pytest.importorskip("accelerate")

WORDS = ["car", "doctor", "house", "wage", "lawyer", "desk"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer of one layer and 32 dimensions that knows these words and no others."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    vocabulary = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    shape = BertConfig(vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
                       intermediate_size=64, max_position_embeddings=64)  # fmt: skip
    BertModel(shape).save_pretrained(folder)
    save: Callable[..., object] = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=words,
        model_max_length=64,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",  # noqa: S106
        sep_token="[SEP]",  # noqa: S106
    ).save_pretrained
    save(folder)
    return folder


def examples(count: int, seed: int) -> list[Examples]:
    """A passage is relevant when it says `good`, whatever is asked."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        texts = [f"{'good' if n == 1 else 'bad'} {chance.choice(WORDS)} {chance.choice(WORDS)}" for n in range(4)]
        found.append(Examples(chance.choice(WORDS), tuple(texts), (0, 1, 0, 0)))
    return found


def weights(folder: Path) -> bytes:
    (file,) = folder.rglob("*.safetensors")
    return file.read_bytes()


def test_it_learns_and_is_served(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    target = tmp_path / "r" / MODEL
    train_cross_encoder(base, examples(40, 0), 60, 0, "cpu", tmp_path / "w", target, told.append, rate=3e-3)
    assert told == list(range(1, 61)) and capfd.readouterr().out == ""  # where --json prints one object
    opened = open_trained(tmp_path / "r", "cross-encoder", digest_of(tmp_path / "r"))
    assert opened.reads == "text"
    for of in examples(10, 1):
        scores = opened.score(
            Question(of.question, lambda: pytest.fail("it reads texts")), list(map(Proposed, of.passages))
        )
        assert max(range(4), key=lambda n: scores[n] or 0.0) == 1


def test_what_was_interrupted_goes_on_from_its_checkpoint(base: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def until(step: int) -> None:
        told.append(step)
        if step == 6:
            raise Killed

    told: list[int] = []
    with pytest.raises(Killed):
        train_cross_encoder(base, examples(12, 0), 8, 7, "cpu", tmp_path / "w", tmp_path / "one", until)
    told.clear()
    train_cross_encoder(base, examples(12, 0), 8, 7, "cpu", tmp_path / "w", tmp_path / "one", told.append)
    assert told == [7, 8] or told == [5, 6, 7, 8]  # behind the last checkpoint, of every second step
    train_cross_encoder(base, examples(12, 0), 8, 7, "cpu", tmp_path / "v", tmp_path / "two")
    assert weights(tmp_path / "one") == weights(tmp_path / "two")


def test_a_folder_that_is_no_transformer_is_told(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="cannot be trained"):
        train_cross_encoder(tmp_path, examples(4, 0), 1, 0, "cpu", tmp_path / "w", tmp_path / "r")
