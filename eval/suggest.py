"""From what people asked and said to judgements that somebody may confirm: each with the reason why it is suggested.

Every text is read as the one who asked may read it now. So nothing is suggested that the asker does not see, whatever
was answered then, or named as missing.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from core.records import Passage, Principal
from eval.golden import Judgement
from store import access, asked, documents, golden
from store.asked import Asked, Shown
from store.documents import Span
from store.pool import Conn, Store, reading_tenant

BEST = 3  # passages of an answer that are looked at when nobody says which were used
BEGINNING = 400  # characters of a document that is suggested as a whole

Find = Callable[[str, str], Sequence[Passage]]  # (who asks, words) → the best passages


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A judgement that nobody has confirmed."""

    judgement: Judgement
    reason: str
    heading: tuple[str, ...] = ()
    shown: str = ""  # what it is to be judged by, where it has no quote


@dataclass(frozen=True, slots=True)
class Suggested:
    """A question with what may answer it."""

    query: str
    subject: str
    told: bool  # by feedback; else by a sample
    requests: tuple[UUID, ...]
    said: tuple[str, ...]  # for whoever looks at it: what was said, and why something of it is no suggestion
    suggestions: tuple[Suggestion, ...]


@dataclass(frozen=True, slots=True)
class Suggestions:
    """All of them, and what none could be made of."""

    questions: tuple[Suggested, ...]
    left_out: Counter[str] = field(default_factory=Counter)  # why → how many searches


def suggest(store: Store, tenant_id: UUID, kept: Sequence[Asked], find: Find) -> Suggestions:
    """Suggestions for each question, equal ones of one person as one; those with feedback come first."""
    left_out: Counter[str] = Counter()
    found: dict[tuple[str, str], Suggested] = {}
    for each in kept:
        if each.query is None:
            left_out["the question's words are not known"] += 1
            continue
        one = _suggested(store, tenant_id, each, each.query, find)
        if not one.suggestions and not each.told:
            left_out["the asker sees none of its passages any more"] += 1
            continue
        before = found.get((one.subject, one.query))
        found[one.subject, one.query] = one if before is None else _joined(before, one)
    return Suggestions(tuple(found.values()), left_out)


def _joined(one: Suggested, two: Suggested) -> Suggested:
    known = {each.judgement.document: each for each in one.suggestions if each.judgement.quote is None}
    places = {(each.judgement.document, each.judgement.quote) for each in one.suggestions}
    more = [
        each
        for each in two.suggestions
        if (each.judgement.document, each.judgement.quote) not in places and each.judgement.document not in known
    ]
    return Suggested(one.query, one.subject, one.told or two.told, (*one.requests, *two.requests),
                     (*one.said, *two.said), (*one.suggestions, *more))  # fmt: skip


def _suggested(store: Store, tenant_id: UUID, kept: Asked, query: str, find: Find) -> Suggested:
    with reading_tenant(store, tenant_id) as conn:
        access.enter_scope(conn, Principal(tenant_id, kept.subject))
        from_passages = list(_of_passages(conn, kept))
        from_documents, notes = _of_documents(conn, tenant_id, kept)
    words = [each.text for each in kept.missing if each.text is not None]
    from_words = [each for text in words for each in _of_words(text, find(kept.subject, text))]
    unfound = [f"nothing that {kept.subject} sees is near to: {text}" for text in words if not from_words]
    return Suggested(query, kept.subject, kept.told, (kept.request_id,), (*_said(kept), *notes, *unfound),
                     (*from_passages, *from_documents, *from_words))  # fmt: skip


def _of_passages(conn: Conn, kept: Asked) -> Iterator[Suggestion]:
    wanted = kept.used or (tuple(range(1, BEST + 1)) if not kept.told or kept.helpful is not None else ())
    markers = [marker for marker in wanted if marker <= len(kept.passages)]
    shown = asked.shown(conn, [kept.passages[marker - 1] for marker in markers])
    grade, reason = _weight(kept)
    for marker in markers:
        span = kept.passages[marker - 1]
        if (passage := shown.get(span)) is not None:
            yield _of_passage(passage, span, grade, f"[{marker}] {reason}")


def _of_passage(passage: Shown, span: Span, grade: int, reason: str) -> Suggestion:
    """The quote where it still stands, by itself or with its place; else the document alone."""
    if passage.times == 1 and passage.text.strip():
        return Suggestion(Judgement(passage.external_id, grade, passage.text), reason, passage.heading)
    if passage.current and passage.text.strip():
        place = (span.start, span.end)
        return Suggestion(Judgement(passage.external_id, grade, passage.text, span=place), reason, passage.heading)
    changed = f"{reason}; the document says something else there now"
    return Suggestion(Judgement(passage.external_id, grade), changed, passage.heading, passage.text)


def _weight(kept: Asked) -> tuple[int, str]:
    match kept.told, bool(kept.used), kept.helpful:
        case True, True, True:
            return 2, "was used, and the answer helped"
        case True, True, False:
            return 1, "was used, and the answer did not help: is it right?"
        case True, True, None:
            return 1, "was used"
        case True, False, True:
            return 1, "is of an answer that helped; which passage did was not said"
        case True, False, False:
            return 1, "is of an answer that did not help: is it to the point at all?"
        case _:
            return 1, "came for a sampled question"


def _of_documents(conn: Conn, tenant_id: UUID, kept: Asked) -> tuple[list[Suggestion], list[str]]:
    """Of documents that were named as missing; and of which of them nothing can be suggested."""
    names = [each.document for each in kept.missing if each.document is not None]
    rows = golden.standing(conn, tenant_id, [(name, None) for name in names])
    spans = {row.n: Span(row.document_id, row.version, 0, min(BEGINNING, row.length)) for row in rows}
    texts = documents.read_spans(conn, list(spans.values())) if spans else {}
    several = {n for n, times in Counter(row.n for row in rows).items() if times > 1}
    found, notes = [], []
    for n, name in enumerate(names, start=1):
        if n in several:
            notes.append(f"{name} is missing, and several documents have that name")
        elif n in spans:
            shown = texts.get(spans[n], "")
            found.append(Suggestion(Judgement(name, 2), "was named as missing", shown=shown))
        else:
            notes.append(f"{name} is missing, and {kept.subject} sees no document of that name")
    return found, notes


def _of_words(text: str, passages: Sequence[Passage]) -> Iterator[Suggestion]:
    """The passage that has the missing words, or else those that are near to them."""
    for passage in passages:
        if text in passage.text:
            cited = passage.citation
            yield Suggestion(Judgement(cited.external_id, 2, text), "these words were missed", cited.heading_path)
            return
    for passage in passages[:BEST]:
        cited = passage.citation
        reason = f"is near to the words that were missed: {text}"
        yield Suggestion(Judgement(cited.external_id, 1, passage.text), reason, cited.heading_path)


def _said(kept: Asked) -> Iterator[str]:
    if kept.helpful is not None:
        yield "the answer helped" if kept.helpful else "the answer did not help"
    if kept.comment:
        yield f"said: {kept.comment}"
