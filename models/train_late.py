"""Learns what late interaction multiplies a question's token vectors by, from judged candidates.

Passages stay the sign bits that are stored, so nothing is encoded anew: a token vector q of the question counts as
q·map, and the map begins as the identity. The loss is the softmax cross-entropy between the grades and the blend of
z-scores that ranks the candidates (ListNet's top-one form: Cao et al., ICML 2007), with a pull towards the identity.
Each step draws its questions by the seed and its own number, so training that was interrupted goes on as if it had not
been.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.token_codes import decode

BATCH = 8  # questions a step
RATE = 3e-4  # Adam's
PULL = 1e-3  # on the squared distance from the identity
SHARPNESS = 4.0  # of the softmax over z-scores
SNAPSHOTS = 8  # maps that are handed over, of which the caller takes the one that ranks best

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Lesson:
    """A question's candidates, at least one of which is relevant."""

    tokens: npt.NDArray[np.floating[Any]]  # rotated, of the question: [tokens, bits]
    codes: tuple[bytes, ...]  # of the candidates
    fused: tuple[float, ...]
    grades: tuple[int, ...]


def learn_map(
    lessons: Sequence[Lesson],
    steps: int,
    seed: int,
    weight: float,
    device: str,
    checkpoint: Path,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Floats]:
    """The map [bits, bits] after each eighth of the steps. `weight` is the blend's that it is trained in.

    On one thread of a processor: products this small gain nothing by two, and on a busy machine they wait for each
    other for most of the time.
    """
    import torch

    torch.set_num_threads(1)
    bits = lessons[0].tokens.shape[1]
    identity = torch.eye(bits, device=device)
    learned = torch.eye(bits, device=device, requires_grad=True)
    adam = torch.optim.Adam([learned], lr=RATE)
    kept, first = _resumed(checkpoint, learned, adam, device)
    yield from kept
    every = max(1, steps // SNAPSHOTS)
    for step in range(first, steps):
        drawn = np.random.default_rng([seed, step]).choice(len(lessons), min(BATCH, len(lessons)), replace=False)
        losses = [_loss(lessons[at], learned, weight, device) for at in drawn.tolist()]
        adam.zero_grad()
        (torch.stack(losses).mean() + PULL * (learned - identity).square().sum()).backward()  # type: ignore[no-untyped-call]
        adam.step()
        if (step + 1) % every == 0:
            found = learned.detach().cpu().numpy().copy()
            kept = [*kept, found]
            state = {"kept": [torch.from_numpy(each) for each in kept], "learned": learned.detach(),
                     "adam": adam.state_dict(), "step": step + 1}  # fmt: skip
            fresh = checkpoint.with_suffix(".new")
            torch.save(state, fresh)
            fresh.rename(checkpoint)
            yield found
        progress(step + 1)


def _resumed(checkpoint: Path, learned: Any, adam: Any, device: str) -> tuple[list[Floats], int]:
    """The maps before, and the step to go on with; `learned` and `adam` stand where they stood."""
    import torch

    if not checkpoint.is_file():
        return [], 0
    state = torch.load(checkpoint, map_location=device, weights_only=True)
    with torch.no_grad():
        learned.copy_(state["learned"])
    adam.load_state_dict(state["adam"])
    return [each.cpu().numpy() for each in state["kept"]], int(state["step"])


def _loss(lesson: Lesson, learned: Any, weight: float, device: str) -> Any:
    import torch

    bits = learned.shape[0]
    signs = torch.from_numpy(decode(b"".join(lesson.codes), bits)).to(device)
    question = torch.from_numpy(lesson.tokens.astype(np.float32)).to(device)
    products = (question @ learned) @ signs.T
    sizes = [len(code) * 8 // bits for code in lesson.codes]
    scores = torch.stack([of_text.amax(1).mean() for of_text in products.split(sizes, dim=1)])
    fused = torch.tensor(lesson.fused, device=device)
    grades = torch.tensor(lesson.grades, dtype=torch.float32, device=device)
    blended = (1 - weight) * _z_scores(fused) + weight * _z_scores(scores)
    return -(grades / grades.sum() * torch.log_softmax(SHARPNESS * blended, 0)).sum()


def _z_scores(values: Any) -> Any:
    return (values - values.mean()) / (values.std(unbiased=False) + 1e-9)
