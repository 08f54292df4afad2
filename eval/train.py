"""Trains rerankers on judged questions: three quarters of the training part teach, the rest choose between what was
learned and at which weight it counts. Nothing here looks at the held-out part; eval/trial.py does, once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import Invalid
from core.trained import RerankerKind
from eval.gate import LEAST
from eval.gather import Candidates
from eval.trial import Part
from models.reranker import CrossEncoderReranker, Reranker
from models.train_cross import Examples, train_cross_encoder
from models.train_late import Floats, Lesson, learn_map
from models.trained import MODEL, Projected, normed, write_map
from retrieval.rerank import LATE_WEIGHT, RERANK_POOL

CHOOSING = 0.25  # of the training part
NEGATIVES = 5  # passages that nobody judged relevant, of a question of the cross-encoder's
TAUGHT = 20  # the same of late interaction's, which costs little

Progress = Callable[[int, int], None]  # steps done, of how many


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is trained."""

    base: Path  # that a cross-encoder begins as
    steps: int
    seed: int
    device: str  # cpu or cuda
    pool: int  # candidates that a cross-encoder looks at
    work: Path  # where checkpoints and results lie


@dataclass(frozen=True, slots=True)
class Learned:
    """What training came to: files in a folder, and how its score is used."""

    kind: RerankerKind
    folder: Path
    reranker: Reranker
    weight: float
    pool: int
    note: str  # what was chosen, for people


def train(kind: RerankerKind, plan: Plan, teaching: Part, choosing: Part, progress: Progress) -> Learned:
    """Train one of the kind. Raises Invalid when too little can be learned from."""
    way = train_late if kind == "late" else train_cross
    return way(plan, teaching, choosing, lambda done: progress(done, plan.steps))


def train_late(plan: Plan, teaching: Part, choosing: Part, progress: Callable[[int], None]) -> Learned:
    """The map and the weight that rank the choosing part best; the best map may be none."""
    lessons = [lesson for lesson in map(lesson_of, teaching.asked) if lesson]
    _enough(lessons, "late interaction")
    plan.work.mkdir(parents=True, exist_ok=True, mode=0o700)
    maps: list[Floats] = [np.eye(lessons[0].tokens.shape[1], dtype=np.float32)]
    maps += learn_map(lessons, plan.steps, plan.seed, LATE_WEIGHT, plan.device, plan.work / "late.pt", progress)
    chosen = [
        (*choosing.best_weight(Projected(normed(each)), RERANK_POOL), -number) for number, each in enumerate(maps)
    ]
    value, weight, number = max(chosen)
    best, folder = maps[-number], plan.work / "late"
    write_map(folder, best)
    note = f"{f'map {-number} of {len(maps) - 1}' if number else 'no map'}, weight {weight:g}"
    return Learned("late", folder, Projected(normed(best)), weight, RERANK_POOL, f"{note} ({value:.4f} on its choice)")


def train_cross(plan: Plan, teaching: Part, choosing: Part, progress: Callable[[int], None]) -> Learned:
    """The cross-encoder, and the weight that ranks the choosing part best."""
    examples = [example for example in map(examples_of, teaching.asked) if example]
    _enough(examples, "a cross-encoder")
    folder = plan.work / "cross-encoder"
    train_cross_encoder(plan.base, examples, plan.steps, plan.seed, plan.device, plan.work / "checkpoints",
                        folder / MODEL, progress)  # fmt: skip
    reranker = CrossEncoderReranker(str(folder / MODEL))
    value, weight = choosing.best_weight(reranker, plan.pool)
    note = f"weight {weight:g} ({value:.4f} on its choice)"
    return Learned("cross-encoder", folder, reranker, weight, plan.pool, note)


def lesson_of(of: Candidates) -> Lesson | None:
    """What late interaction learns from a question; None where its candidates hold nothing relevant, or all are."""
    tokens = of.question.tokens()
    places = [place for place in _picked(of, TAUGHT) if of.passages[place].code]
    grades = tuple(of.grades[place] for place in places)
    if not len(tokens) or not any(grades) or all(grades):
        return None
    codes = tuple(of.passages[place].code or b"" for place in places)
    return Lesson(tokens, codes, tuple(of.fused[place].fused for place in places), grades)


def examples_of(of: Candidates) -> Examples | None:
    """What a cross-encoder learns from a question: its relevant passages, and the best of those that are not."""
    places = _picked(of, NEGATIVES)
    grades = tuple(of.grades[place] for place in places)
    if not any(grades) or all(grades):
        return None
    return Examples(of.query.query, tuple(of.passages[place].text for place in places), grades)


def _picked(of: Candidates, others: int) -> Sequence[int]:
    """Places in the pool: of every relevant candidate, and of the best `others`."""
    good = [place for place, grade in enumerate(of.grades) if grade]
    return sorted(good + [place for place, grade in enumerate(of.grades) if not grade][:others])


def _enough(found: Sequence[object], what: str) -> None:
    if len(found) < LEAST:
        raise Invalid(
            f"{what} could learn from {len(found)} questions, and needs {LEAST}: judge more questions about documents "
            "that are public, whose relevant passages the search proposes"
        )
