"""Do the passages that an answer cites say what it says? Each claim against its spans, as the asker may read them.

A claim is *supported* when it cites a passage, each of its quotations, numbers and dates stands in what it cites, and
its likeness to that is at least the threshold. It is *unsupported* when even all that the answer cites, anywhere, does
not do so. Between the two is what could have been cited and was not: coverage is the share that is supported, and the
unsupported-claim rate the share that nothing cited bears out. A passage that the asker may not read is none.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from uuid import UUID

import numpy as np

from core.records import Place, Principal
from eval.bootstrap import Estimate, estimates
from eval.claims import Claim, claims_of
from eval.facts import facts_of, missing
from eval.judge import Judge, ask_judge
from eval.sentences import windows
from models.embedder import Embedder
from store import access, documents, golden
from store.documents import Span
from store.golden import Standing
from store.pool import Conn, Store, reading_tenant

COVERAGE, UNSUPPORTED = "coverage", "unsupported"
THRESHOLD = 0.5
NOT_READ = "cites nothing that the asker may read"


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What an agent answered, and the passages that it was given, by marker."""

    id: str
    query: str
    subject: str  # the label of who asked
    text: str
    citations: Mapping[int, Span | Place]


@dataclass(frozen=True, slots=True)
class Checked:
    """One claim beside what it cites."""

    claim: Claim
    supported: bool  # by the passages that it cites
    unsupported: bool  # by all that the answer cites
    why: str  # not supported; empty where it is
    likeness: float | None  # to what it cites; None where that cannot be read
    nearest: str = ""  # the sentence there that is most like it
    lacks: tuple[str, ...] = ()  # quotations, numbers and dates that do not stand there
    judged: bool | None = None  # supported, by a language model; None: not asked, or it did not answer


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """An answer with its claims."""

    answer: AgentAnswer
    claims: tuple[Checked, ...]
    texts: Mapping[int, str]  # by marker, what the asker may read of what it cites

    def cited(self, place: int) -> list[str]:
        """What the claim at that place cites, as far as the asker may read it."""
        return [self.texts[marker] for marker in self.claims[place].claim.markers if marker in self.texts]

    def values(self) -> dict[str, float]:
        """Both measures; nothing of an answer that claims nothing."""
        if not self.claims:
            return {}
        return {
            COVERAGE: fmean(each.supported for each in self.claims),
            UNSUPPORTED: fmean(each.unsupported for each in self.claims),
        }


@dataclass(frozen=True, slots=True)
class SecondOpinion:
    """What a language model said of the claims whose citations can be read."""

    supported: int
    unsupported: int
    agrees: int  # with the verdict without it
    failed: int  # claims that it was asked about and gave no opinion on
    failures: tuple[str, ...]  # the distinct reasons


@dataclass(frozen=True, slots=True)
class Grounding:
    """Everything that the answers came to."""

    answers: tuple[CheckedAnswer, ...]
    threshold: float
    measures: dict[str, Estimate]  # means over the answers that claim something
    claims: int
    supported: int  # claims
    unsupported: int
    silent: int  # answers that claim nothing
    judge: SecondOpinion | None = None


class Likeness:
    """The cosine of a claim with the nearest sentence of what it cites. All of them are embedded once, together.

    By sentence, because a passage says more than the claim: on SciFact the area under the curve is 0.83 against the
    nearest wrong document, and 0.75 with whole passages (docs/decisions/0029).
    """

    def __init__(self, embedder: Embedder, claims: Iterable[str], passages: Iterable[str]) -> None:
        self._windows = {passage: windows(passage) for passage in passages}
        texts = [*claims, *(window for found in self._windows.values() for window in found)]
        rows = {text: n for n, text in enumerate(dict.fromkeys(texts))}
        self._rows, self._vectors = rows, embedder.embed_documents(list(rows)) if rows else np.empty((0, 0), np.float32)

    def of(self, claim: str, passages: Sequence[str]) -> tuple[float, str]:
        """The cosine, in [-1, 1], and the nearest sentence; -1 where the passages hold none."""
        found = [window for passage in passages for window in self._windows[passage]]
        if not found:
            return -1.0, ""
        cosines = self._vectors[[self._rows[window] for window in found]] @ self._vectors[self._rows[claim]]
        return float(cosines.max()), found[int(cosines.argmax())]


def check_answers(
    store: Store, tenant_id: UUID, embedder: Embedder, answers: Sequence[AgentAnswer], threshold: float = THRESHOLD
) -> Grounding:
    """Hold every claim against its passages, read as who asked."""
    texts = cited_texts(store, tenant_id, answers)
    claims = [claims_of(answer.text) for answer in answers]
    likeness = Likeness(embedder, [claim.text for found in claims for claim in found if any(texts)],
                        [text for found in texts for text in found.values()])  # fmt: skip
    checked = tuple(
        CheckedAnswer(answer, tuple(_checked(claim, texts[n], likeness, threshold) for claim in found), texts[n])
        for n, (answer, found) in enumerate(zip(answers, claims, strict=True))
    )
    return summed(checked, threshold)


def judged_by(judge: Judge, found: Grounding) -> Grounding:
    """The same with what a judge says of each claim whose citations can be read; no figure of ours changes."""
    asked = [(a, c) for a, each in enumerate(found.answers) for c, claim in enumerate(each.claims)
             if claim.likeness is not None]  # fmt: skip
    pairs = [(found.answers[a].claims[c].claim.text, found.answers[a].cited(c)) for a, c in asked]
    opinions = ask_judge(judge, pairs)
    said = dict(zip(asked, opinions.said, strict=True))
    answers = tuple(
        replace(each, claims=tuple(replace(claim, judged=said.get((a, c))) for c, claim in enumerate(each.claims)))
        for a, each in enumerate(found.answers)
    )
    told = [claim for each in answers for claim in each.claims if claim.judged is not None]
    supported = sum(claim.judged is True for claim in told)
    agrees = sum(claim.judged == claim.supported for claim in told)
    summary = SecondOpinion(supported, len(told) - supported, agrees, opinions.failed, opinions.failures)
    return replace(found, answers=answers, judge=summary)


def summed(checked: tuple[CheckedAnswer, ...], threshold: float) -> Grounding:
    """The means over answers, and the claims counted."""
    rows = [values for each in checked if (values := each.values())]
    every = [claim for each in checked for claim in each.claims]
    measures = estimates({name: [row[name] for row in rows] for name in (COVERAGE, UNSUPPORTED)}) if rows else {}
    return Grounding(
        checked, threshold, measures, len(every), sum(c.supported for c in every), sum(c.unsupported for c in every),
        len(checked) - len(rows),
    )  # fmt: skip


def cited_texts(store: Store, tenant_id: UUID, answers: Sequence[AgentAnswer]) -> list[dict[int, str]]:
    """Of each answer, by marker, the text of the passages that it cites and its asker may read now."""
    found: list[dict[int, str]] = [{} for _ in answers]
    for subject in dict.fromkeys(answer.subject for answer in answers):
        asked = {n: _cited(answer) for n, answer in enumerate(answers) if answer.subject == subject}
        with reading_tenant(store, tenant_id) as conn:
            access.enter_scope(conn, Principal(tenant_id, subject))
            spans = _current(conn, tenant_id, {each for cited in asked.values() for each in cited.values()})
            texts = documents.read_spans(conn, list(dict.fromkeys(spans.values())))
        for n, cited in asked.items():
            readable = {marker: texts.get(spans[each]) for marker, each in cited.items() if each in spans}
            found[n] = {marker: text for marker, text in readable.items() if text}
    return found


def _current(conn: Conn, tenant_id: UUID, cited: Iterable[Span | Place]) -> dict[Span | Place, Span]:
    """Where each stands; what is named by a document that the transaction does not see, or by several, is left out."""
    every = list(cited)
    named = sorted({each.external_id for each in every if isinstance(each, Place)})
    seen: dict[str, list[Standing]] = {}
    for row in golden.standing(conn, tenant_id, [(name, None) for name in named]) if named else ():
        seen.setdefault(named[row.n - 1], []).append(row)
    spans: dict[Span | Place, Span] = {each: each for each in every if isinstance(each, Span)}
    for each in every:
        if isinstance(each, Place) and len(found := seen.get(each.external_id, [])) == 1:
            (row,) = found
            spans[each] = Span(row.document_id, row.version, min(each.start, row.length), min(each.end, row.length))
    return spans


def _cited(answer: AgentAnswer) -> dict[int, Span | Place]:
    markers = {marker for claim in claims_of(answer.text) for marker in claim.markers}
    return {marker: span for marker, span in answer.citations.items() if marker in markers}


def _checked(claim: Claim, texts: Mapping[int, str], likeness: Likeness, threshold: float) -> Checked:
    facts, every = facts_of(claim.text), list(texts.values())
    cited = [texts[marker] for marker in claim.markers if marker in texts]
    lacks = missing(facts, "\n".join(cited)) if cited else ()
    near, nearest = likeness.of(claim.text, cited) if cited else (None, "")
    why = _why(claim, near, lacks, threshold)
    elsewhere = bool(every) and not missing(facts, "\n".join(every))
    borne_out = not why or (elsewhere and likeness.of(claim.text, every)[0] >= threshold)
    return Checked(claim, not why, not borne_out, why, near, nearest, lacks)


def _why(claim: Claim, near: float | None, lacks: tuple[str, ...], threshold: float) -> str:
    if not claim.markers:
        return "cites nothing"
    if near is None:
        return NOT_READ
    if lacks:
        return "not in what it cites: " + "; ".join(lacks)
    return "" if near >= threshold else f"likeness {near:.2f}, below {threshold:.2f}"
