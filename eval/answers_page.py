"""Agents' answers as a page: each claim beside what it cites, and whether that bears it out."""

import re
from collections.abc import Iterator

from core.records import Place
from eval.grounding import COVERAGE, NOT_READ, UNSUPPORTED, Checked, CheckedAnswer, Grounding
from eval.page import TEXT, Beside, Block, Box, Page, Section, Table

LEAD = 120  # characters that are shown before what is marked
MEANING = {
    COVERAGE: "of an answer's claims, the share whose own citations bear them out",
    UNSUPPORTED: "the share that nothing which the answer cites bears out",
}


def answers_page(name: str, found: Grounding) -> Page:
    """The measures, what the judge said, and every claim, answers with the most unsupported ones first."""
    ordered = sorted(found.answers, key=lambda each: -each.values().get(UNSUPPORTED, 0))
    sections = [Section("Measures", tuple(_measures(found)))]
    sections += [Section(f"{each.answer.id}: {each.answer.query}", tuple(_claims(each))) for each in ordered]
    return Page(f"{name}: {len(found.answers)} answers, {found.claims} claims", tuple(sections))


def _measures(found: Grounding) -> Iterator[Block]:
    rows = tuple(
        (label, f"{each.mean:.3f}", f"[{each.low:.3f}, {each.high:.3f}]", MEANING[label])
        for label, each in found.measures.items()
    )
    yield Table(("measure", "mean", "95 % of resamples", "what it is"), rows, (0, 3))
    yield (f"{found.supported} of {found.claims} claims are supported, {found.unsupported} unsupported; {found.silent} "
           f"answers claim nothing. Likeness counts from {found.threshold:.2f} on.")  # fmt: skip
    if found.judge:
        judge = found.judge
        told = f"A language model finds {judge.supported} claims supported and {judge.unsupported} not, and agrees "
        told += f"with {judge.agrees} of these verdicts."
        failed = f" It gave no opinion on {judge.failed}: {'; '.join(judge.failures)}." if judge.failed else ""
        yield told + failed


def _claims(each: CheckedAnswer) -> Iterator[Block]:
    yield f"Asked by {each.answer.subject}."
    if not each.claims:
        yield "The answer claims nothing."
    for claim in each.claims:
        boxes = tuple(_box(each, claim, marker) for marker in claim.claim.markers if marker in each.texts)
        came = Box(_verdict(claim), claim.claim.raw)
        yield Beside(verdict_of(claim), (came,), boxes, ("the claim", "what it cites"))


def _box(each: CheckedAnswer, claim: Checked, marker: int) -> Box:
    """The passage from a little before the sentence that is nearest to the claim, which is marked."""
    span, text = each.answer.citations[marker], each.texts[marker]
    nearest = re.search(r"\s+".join(map(re.escape, claim.nearest.split())), text) if claim.nearest else None
    start = max(0, nearest.start() - LEAD) if nearest and nearest.end() > TEXT else 0
    lead = "…" if start else ""
    marks = ((nearest.start() - start + len(lead), nearest.end() - start + len(lead)),) if nearest else ()
    named = span.external_id if isinstance(span, Place) else f"{span.document_id}, version {span.version}"
    return Box(f"[{marker}] {named}, {span.start}–{min(span.end, span.start + len(text))}", lead + text[start:], marks)


def verdict_of(claim: Checked) -> str:
    """In a word, or two."""
    if claim.supported:
        return "supported"
    return "unsupported" if claim.unsupported else "supported by another passage"


def _verdict(claim: Checked) -> str:
    near = f"likeness {claim.likeness:.2f}" if claim.likeness is not None else ""
    judged = "" if claim.judged is None else f"the judge says {'supported' if claim.judged else 'unsupported'}"
    why = claim.why if claim.why in (NOT_READ, "cites nothing") or claim.lacks else ""
    return "; ".join(part for part in (near, why, judged) if part)
