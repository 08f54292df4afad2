"""Fine-tunes a cross-encoder by sentence-transformers' trainer, from questions with good and bad passages.

The loss is LambdaLoss (Wang et al., CIKM 2018): a relevant passage is to stand above the others of its question, which
are what the fused legs proposed and nobody judged relevant. Checkpoints lie in a folder; training that was interrupted
goes on from the last of them.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import Misconfigured

QUESTIONS = 4  # a step
PAIRS = 16  # in one pass
RATE = 5e-5
MAX_TOKENS = 256  # of question and passage together: a passage has 200 by default
CHECKPOINTS = 4  # in the course of a training


@dataclass(frozen=True, slots=True)
class Examples:
    """A question, passages of its pool, and their grades; at least one is relevant and one is not."""

    question: str
    passages: tuple[str, ...]
    grades: tuple[int, ...]


def train_cross_encoder(
    base: Path,
    examples: Sequence[Examples],
    steps: int,
    seed: int,
    device: str,
    work: Path,
    target: Path,
    progress: Callable[[int], None] = lambda done: None,
    rate: float = RATE,
) -> None:
    """Train `base` and save it in the folder `target`; `work` holds the checkpoints. Raises Misconfigured."""
    try:
        from datasets import Dataset  # type: ignore[import-untyped]
        from sentence_transformers.cross_encoder.losses import LambdaLoss
        from sentence_transformers.cross_encoder.trainer import CrossEncoderTrainer
        from transformers.trainer_callback import PrinterCallback
        from transformers.trainer_utils import get_last_checkpoint
    except ImportError as error:
        raise Misconfigured(f"training a cross-encoder needs more packages: pip install citadel-rag[train] ({error})") \
            from error  # fmt: skip
    model = _opened(base, seed, device)
    rows = {"query": [each.question for each in examples], "docs": [list(each.passages) for each in examples],
            "labels": [[float(grade) for grade in each.grades] for each in examples]}  # fmt: skip
    trainer = CrossEncoderTrainer(
        model=model,
        args=_arguments(steps, seed, device, work, rate),
        train_dataset=Dataset.from_dict(rows),
        loss=LambdaLoss(model, mini_batch_size=PAIRS),
        callbacks=[_told(progress)],
    )
    trainer.remove_callback(PrinterCallback)  # which writes to standard output
    last = get_last_checkpoint(str(work)) if work.is_dir() else None  # type: ignore[no-untyped-call]
    trainer.train(resume_from_checkpoint=last)
    model.save_pretrained(str(target), create_model_card=False)


def _opened(base: Path, seed: int, device: str) -> Any:
    """The base with one score; its head is drawn by the seed when it has none. Raises Misconfigured."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers.utils import logging as quiet

    logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
    # it reports that the head is new, which is so on purpose
    quiet.set_verbosity_error()  # type: ignore[no-untyped-call]
    quiet.disable_progress_bar()  # type: ignore[no-untyped-call]
    torch.manual_seed(seed)
    try:
        return CrossEncoder(str(base), num_labels=1, max_length=MAX_TOKENS, device=device, local_files_only=True)
    except (OSError, ValueError) as error:
        raise Misconfigured(f"{base} cannot be trained: give a folder with a transformer, its config.json and "
                            f"tokenizer ({str(error).splitlines()[0][:200]})") from error  # fmt: skip


def _arguments(steps: int, seed: int, device: str, work: Path, rate: float) -> Any:
    from sentence_transformers.cross_encoder.training_args import CrossEncoderTrainingArguments

    return CrossEncoderTrainingArguments(
        output_dir=str(work), max_steps=steps, per_device_train_batch_size=QUESTIONS, learning_rate=rate,
        warmup_steps=max(1, steps // 10), seed=seed, data_seed=seed, use_cpu=device == "cpu", bf16=device == "cuda",
        save_strategy="steps", save_steps=max(1, steps // CHECKPOINTS), save_total_limit=1, logging_strategy="no",
        report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip


def _told(progress: Callable[[int], None]) -> Any:
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            progress(state.global_step)

    return Told()
