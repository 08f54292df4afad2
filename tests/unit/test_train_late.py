"""The projection of late interaction: learned from judged candidates, and the same after an interruption."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from models.fake_embedder import FakeEmbedder
from models.reranker import LateInteraction, Proposed, Question
from models.token_codes import decode
from models.train_late import Lesson, learn_map
from models.trained import Projected, digest_of, normed, open_trained, write_map

PAIRS = [("car", "automobile"), ("doctor", "physician"), ("house", "dwelling")]


def lessons(topics: Sequence[str]) -> list[Lesson]:
    """Of each topic and pair, a question by the one word; relevant is the text with the other."""
    fake, found = FakeEmbedder(), []
    for topic in topics:
        for word, other in PAIRS:
            _, codes = fake.embed_documents_with_tokens([f"{topic} {word}", f"{topic} {other}", f"{topic} desk"])
            (tokens,) = fake.embed_queries_with_tokens([f"{topic} {word}"])[1]
            found.append(Lesson(tokens, tuple(codes), (1.0, 0.5, 0.4), (0, 1, 0)))
    return found


def won(mapping: np.ndarray | None, asked: Sequence[Lesson]) -> int:
    """In how many of these the relevant text has the best score."""
    reranker = LateInteraction() if mapping is None else Projected(normed(mapping))
    best = [
        reranker.score(Question("", lambda of=of: of.tokens), list(map(Proposed, [""] * 3, of.codes))) for of in asked
    ]
    return sum(
        int(np.argmax(np.array(scores, float))) == of.grades.index(1) for scores, of in zip(best, asked, strict=True)
    )


def test_what_is_learned_holds_for_questions_never_seen(tmp_path: Path) -> None:
    teaching, unseen = lessons([f"t{n}" for n in range(8)]), lessons([f"u{n}" for n in range(8)])
    told: list[int] = []
    maps = list(learn_map(teaching, 80, 0, 0.5, "cpu", tmp_path / "late.pt", told.append))
    assert len(maps) == 8 and told == list(range(1, 81))
    assert won(None, unseen) == 0 and won(maps[-1], unseen) > len(unseen) / 2


def test_training_that_was_interrupted_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    teaching = lessons(["a", "b", "c"])
    whole = list(learn_map(teaching, 16, 3, 0.5, "cpu", tmp_path / "whole.pt"))
    broken = list(islice(learn_map(teaching, 16, 3, 0.5, "cpu", tmp_path / "broken.pt"), 3))  # step 6 of 16
    told: list[int] = []
    resumed = list(learn_map(teaching, 16, 3, 0.5, "cpu", tmp_path / "broken.pt", told.append))
    assert told == list(range(7, 17))
    assert all(np.array_equal(one, other) for one, other in zip(whole, resumed, strict=True)) and len(broken) == 3
    assert not np.array_equal(whole[-1], list(learn_map(teaching, 16, 4, 0.5, "cpu", tmp_path / "other.pt"))[-1])


def test_a_projected_score_is_that_of_the_projected_question(tmp_path: Path) -> None:
    (of,) = lessons(["x"])[:1]
    mapping = np.random.default_rng(0).normal(size=(128, 128))
    write_map(tmp_path / "r", mapping)
    opened = open_trained(tmp_path / "r", "late", digest_of(tmp_path / "r"))
    scores = opened.score(Question("", lambda: of.tokens), [Proposed("", code) for code in of.codes])
    question = of.tokens @ (mapping / np.linalg.svd(mapping)[1][0])
    signs = [decode(code, 128) for code in of.codes]
    expected = [np.sqrt(np.pi / 256) * (question @ each.T).max(axis=1).mean() for each in signs]
    assert scores == pytest.approx(expected, abs=1e-4)
    assert opened.score(Question("", lambda: np.empty((0, 0))), [Proposed("", of.codes[0])]) == [None]
