"""A golden set in two parts to train by: what is learned from shares neither document nor words with what judges it.

`eval.split` keeps groups whole, to choose a setting by; here what touches both parts is left out instead, so that one
document that many questions share does not take them all to one side.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.golden import GoldenQuery, GoldenSet


@dataclass(frozen=True, slots=True)
class Parts:
    """Both, and how many questions are in neither."""

    training: GoldenSet
    held_out: GoldenSet
    left_out: int  # would share a relevant document, or their very words, with what is held out


def divide(golden: GoldenSet, share: float, salt: str = "") -> Parts:
    """About `share` of the answerable questions are held out.

    Which, follows from the sha256 of the first of their relevant documents by name, so a set that grows keeps its
    parts, and questions about one document stay together; another `salt` gives other parts. What still touches both, by
    a second document or by the same words, is left out of the training.
    """
    queries = [query for query in golden.queries if query.answerable()]
    held = [query for query in queries if _place(salt + min(_documents(query))) < share]
    others = [query for query in queries if _place(salt + min(_documents(query))) >= share]
    documents = {name for query in held for name in _documents(query)}
    words = {_words(query) for query in held}
    training = [query for query in others if not _documents(query) & documents and _words(query) not in words]
    return Parts(_of(golden, training), _of(golden, held), len(others) - len(training))


def _of(golden: GoldenSet, queries: Sequence[GoldenQuery]) -> GoldenSet:
    return replace(golden, queries=tuple(queries))


def _documents(query: GoldenQuery) -> set[str]:
    return {name for name, grade in query.gains().items() if grade > 0}


def _words(query: GoldenQuery) -> str:
    return " ".join(query.query.lower().split())


def _place(name: str) -> float:
    """From 0 to 1, evenly, the same on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
