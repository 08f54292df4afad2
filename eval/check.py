"""Is a golden set still true? Judgements that point at nothing, at two places, or past what their asker may see."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from uuid import UUID

from core.records import Principal
from eval.golden import GoldenQuery, GoldenSet, Judgement
from store import access, golden
from store.golden import Standing
from store.pool import Store, reading_tenant, writing

Kind = Literal["dead", "ambiguous", "leaking"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong with a judgement, and what to do about it."""

    kind: Kind
    query_id: str
    subject: str
    document: str
    problem: str


def check(store: Store, tenant_id: UUID, questions: GoldenSet) -> list[Finding]:
    """Every judgement that is dead, ambiguous or leaking, in the set's order.

    Dead: the document, the quote, the page or the span is not in the index. Ambiguous: the name is that of several
    documents, or the quote stands in several places. Leaking: the asker may not see what is relevant, or may see
    what is forbidden to it. Reads the whole tenant, as its operator.
    """
    judged = [(query, judgement) for query in questions.queries for judgement in query.relevant]
    with writing(store) as conn:
        there = golden.standing(conn, tenant_id, [(j.document, j.quote) for _, j in judged])
        names = sorted({j.document for _, j in judged} | {name for q in questions.queries for name in q.forbidden})
        held = {names[row.n - 1] for row in golden.standing(conn, tenant_id, [(name, None) for name in names])}
    by_place: dict[int, list[Standing]] = {}
    for row in there:
        by_place.setdefault(row.n - 1, []).append(row)
    seen = _seen(store, tenant_id, questions)
    problems: dict[str, list[Finding]] = {query.id: [] for query in questions.queries}
    for place, (query, judgement) in enumerate(judged):
        found = _judgement(query, judgement, by_place.get(place, []), seen)
        problems[query.id] += [found] if found else []
    for query in questions.queries:
        problems[query.id] += _forbidden(query, held, seen)
    return [finding for found in problems.values() for finding in found]


def without_gone(
    store: Store, tenant_id: UUID, queries: Sequence[GoldenQuery]
) -> tuple[list[GoldenQuery], list[Finding]]:
    """The questions with those judgements alone that are neither dead nor leaking, and what is wrong with the others:
    a file that was written before an erasure must not bring back what it quotes."""
    found = check(store, tenant_id, GoldenSet("", "", tuple(queries)))
    gone = [finding for finding in found if finding.kind != "ambiguous"]
    barred = {(finding.query_id, finding.document) for finding in gone}
    left = [replace(query, relevant=tuple(j for j in query.relevant if (query.id, j.document) not in barred))
            for query in queries]  # fmt: skip
    return [query for query in left if query.relevant], gone


def _seen(store: Store, tenant_id: UUID, questions: GoldenSet) -> Mapping[str, set[str]]:
    """The documents that each subject may see, of those that its questions name."""
    named: dict[str, set[str]] = {}
    for query in questions.queries:
        named.setdefault(query.subject, set()).update(query.gains(), query.forbidden)
    seen = {}
    for subject, names in named.items():
        asked = [(name, None) for name in sorted(names)]
        with reading_tenant(store, tenant_id) as conn:
            access.enter_scope(conn, Principal(tenant_id, subject))
            seen[subject] = {asked[row.n - 1][0] for row in golden.standing(conn, tenant_id, asked)}
    return seen


def _judgement(
    query: GoldenQuery, judgement: Judgement, there: Sequence[Standing], seen: Mapping[str, set[str]]
) -> Finding | None:
    def finding(kind: Kind, problem: str) -> Finding:
        return Finding(kind, query.id, query.subject, judgement.document, problem)

    if not there:
        return finding("dead", "there is no indexed document of this name")
    if judgement.grade > 0 and judgement.document not in seen[query.subject]:
        return finding("leaking", f"is relevant to {query.subject}, who may not see it")
    if len(there) > 1:
        return finding("ambiguous", f"{len(there)} documents have this name, in different sources")
    (one,) = there
    if judgement.span and judgement.span[1] > one.length:
        return finding("dead", f"the span ends at {judgement.span[1]}, the text at {one.length}")
    if judgement.page and (one.pages is None or judgement.page > one.pages):
        return finding("dead", f"there is no page {judgement.page}; the last is {one.pages or 'unknown'}")
    if one.times == 0:
        return finding("dead", f"the quote does not stand there any more: {(judgement.quote or '')[:60]!r}")
    if one.times and one.times > 1 and judgement.span is None and judgement.page is None:
        return finding("ambiguous", f"the quote stands there {one.times} times: {(judgement.quote or '')[:60]!r}")
    return None


def _forbidden(query: GoldenQuery, held: set[str], seen: Mapping[str, set[str]]) -> Iterator[Finding]:
    for name in query.forbidden:
        if name not in held:
            yield Finding("dead", query.id, query.subject, name, "is forbidden, and there is no such document")
        elif name in seen[query.subject]:
            problem = f"is forbidden to {query.subject}, who may see it"
            yield Finding("leaking", query.id, query.subject, name, problem)
