"""Questions in two parts that do not meet: one to choose a setting on, the other, held out, to see what it is worth.

Questions about the same document go into the same part: a setting that suits the document would else be measured on
what it was chosen by. Which part, the sha256 of their ids says, so that it is the same in every run. Parts to learn
from are another matter: `eval/parts.py`.
"""

import hashlib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from core.errors import Invalid
from eval.gate import LEAST
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import unit_of


@dataclass(frozen=True, slots=True)
class Split:
    """Ids of the questions that judge something relevant."""

    train: frozenset[str]
    held: frozenset[str]
    groups: int  # of questions that stay together


def split(golden: GoldenSet, share: float = 0.5, together: bool = True) -> Split:
    """The held-out part has at least `share` of the questions. Raises Invalid when a part would be too small.

    Where every judgement is a span, questions stay together whose spans overlap: there, a document has them all.
    """
    queries = [query for query in golden.queries if query.answerable()]
    groups = _groups({query.id: _judged(query, unit_of(golden) == "passage") if together else [] for query in queries})
    held: set[str] = set()
    for group in sorted(groups, key=lambda each: min(map(_hash, each))):
        if len(held) < share * len(queries):
            held |= group
    train = {query.id for query in queries} - held
    if min(len(train), len(held)) < LEAST:
        raise Invalid(
            f"{len(queries)} questions in {len(groups)} groups that share no document make parts of {len(train)} and "
            f"{len(held)}, and a part needs {LEAST}: judge more, or let questions about one document come apart with "
            "--apart"
        )
    return Split(frozenset(train), frozenset(held), len(groups))


def _judged(query: GoldenQuery, spans: bool) -> list[Hashable]:
    """What a question is about: its relevant documents, or each character of its spans."""
    relevant = [judgement for judgement in query.relevant if judgement.grade > 0]
    if not spans:
        return [judgement.document for judgement in relevant]
    return [(j.document, place) for j in relevant if j.span for place in range(*j.span)]


def _groups(about: Mapping[str, Iterable[Hashable]]) -> list[set[str]]:
    """The questions that are about the same, directly or by others between them."""
    group_of: dict[str, set[str]] = {query_id: {query_id} for query_id in about}
    first: dict[Hashable, str] = {}
    for query_id, things in about.items():
        for thing in things:
            one, other = group_of[first.setdefault(thing, query_id)], group_of[query_id]
            if one is not other:
                one |= other
                group_of |= dict.fromkeys(other, one)
    return list({id(group): group for group in group_of.values()}.values())


def _hash(query_id: str) -> str:
    return hashlib.sha256(query_id.encode()).hexdigest()
