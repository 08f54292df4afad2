"""Counting and locating tokens with a fast tokenizer of our own: no truncation, no padding, no shared state."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 512  # texts encoded at once: an encoding takes some 100 bytes a token until its batch is done


class TokenCounter:
    """A tokenizer without truncation and padding; what it is given is changed to be so and must not be shared."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special tokens."""
        counts: list[int] = []
        for start in range(0, len(texts), BATCH):
            encoded = self._tokenizer.encode_batch_fast([*texts[start : start + BATCH]], add_special_tokens=False)
            counts += [len(encoding.ids) for encoding in encoded]
        return counts

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each token in code points, in order."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)
