"""A policy on personal data and secrets, applied to what a parser gave: before anything of it is stored or embedded."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from core.errors import SensitiveContent
from core.flags import Flag
from core.records import Element, ParsedDocument
from core.sensitive import KINDS, Kind, Policy, Screening, stricter
from ingest.recognise import Found, recognise

REGION = "US"  # of phone numbers without a country code


def screen(document: ParsedDocument, policy: Policy, region: str = REGION) -> ParsedDocument:
    """The document with what the policy masks replaced by its kind's name, and all that was found flagged.

    So are the title, elements' contexts, names of attachments, which become external ids, and warnings. Spans are those
    of the text that comes out. Raises SensitiveContent for a kind that the policy keeps out.
    """
    spans = _found(document.text, policy, region)
    around = [document.title or "", *{element.context for element in document.elements}, *document.warnings]
    around += [file.name for file in document.attachments] + [file.name for file in document.refused]
    besides = [found for text in around if text for found in _found(text, policy, region)]
    found = Counter(each.kind for each in spans) | Counter(each.kind for each in besides)  # a title stands in both
    _keep_out(found, policy)
    return replace(_marked(document, spans, policy, region), screening=Screening(policy, dict(found)))


def _keep_out(found: Counter[Kind], policy: Policy) -> None:
    barred = [f"{count} × {kind}" for kind, count in sorted(found.items()) if policy[kind] == "quarantine"]
    if barred:
        raise SensitiveContent(
            f"the policy keeps out what this document holds: {', '.join(barred)}; mend the document, or change the "
            "policy (citadel policy) and try the job again"
        )


def _apart(found: Sequence[Found], policy: Policy) -> list[Found]:
    """In order and apart: where some overlap, the one that the policy is strictest with covers all of them."""
    apart: list[Found] = []
    for each in found:
        if not apart or apart[-1].end <= each.start:
            apart.append(each)
            continue
        last = apart[-1]
        kind = min(last.kind, each.kind, key=lambda kind: (-stricter(policy, kind), KINDS.index(kind)))
        apart[-1] = Found(kind, last.start, max(last.end, each.end))
    return apart


def _marked(document: ParsedDocument, spans: Sequence[Found], policy: Policy, region: str) -> ParsedDocument:
    masked = [each for each in spans if policy[each.kind] == "mask"]
    moves = _Moves.of(masked)
    flags = [Flag(each.kind, *moves.span(each.start, each.end)) for each in spans]
    flags += [replace(flag, start=start, end=end) for flag in document.flags
              for start, end in [moves.span(flag.start, flag.end)] if start < end]  # fmt: skip
    flags.sort(key=lambda flag: (flag.kind, flag.start))
    if not any(policy[kind] == "mask" for kind in KINDS):
        return replace(document, flags=tuple(flags))
    return replace(
        document,
        text=_written(document.text, masked),
        title=document.title and masked_text(document.title, policy, region),
        elements=tuple(_moved(document.elements, moves, policy, region)),
        flags=tuple(flags),
        warnings=tuple(masked_text(warning, policy, region) for warning in document.warnings),
        attachments=tuple(replace(each, name=masked_text(each.name, policy, region)) for each in document.attachments),
        refused=tuple(replace(each, name=masked_text(each.name, policy, region)) for each in document.refused),
    )


def masked_text(text: str, policy: Policy, region: str = REGION) -> str:
    """A text beside the canonical one, with what the policy masks replaced."""
    return _written(text, [each for each in _found(text, policy, region) if policy[each.kind] == "mask"])


def holds(text: str, policy: Policy, region: str = REGION) -> bool:
    """Whether the text holds anything that the policy looks for."""
    return bool(_found(text, policy, region))


def _found(text: str, policy: Policy, region: str) -> list[Found]:
    kinds = [kind for kind in KINDS if policy[kind] != "off"]
    return _apart(recognise(text, kinds, region), policy)


def _written(text: str, masked: Sequence[Found]) -> str:
    parts, place = [], 0
    for each in masked:
        parts += [text[place : each.start], _mask(each.kind)]
        place = each.end
    return "".join((*parts, text[place:]))


def _moved(elements: Sequence[Element], moves: "_Moves", policy: Policy, region: str) -> list[Element]:
    """The elements where they stand now; one that lies within a mask, behind its beginning, is gone."""
    contexts = {context: masked_text(context, policy, region) for context in {each.context for each in elements}}
    placed = [(each, moves.span(each.start, each.end)) for each in elements]
    return [
        replace(each, start=start, end=end, context=contexts[each.context])
        for each, (start, end) in placed
        if start < end
    ]


@dataclass(frozen=True, slots=True)
class _Moves:
    """Where a place of the text lies when spans of it were replaced by masks."""

    starts: list[int]
    ends: list[int]
    shifts: list[int]  # of places behind each mask

    @classmethod
    def of(cls, masked: Sequence[Found]) -> "_Moves":
        longer = [len(_mask(each.kind)) - (each.end - each.start) for each in masked]
        return cls([each.start for each in masked], [each.end for each in masked], list(accumulate(longer)))

    def span(self, start: int, end: int) -> tuple[int, int]:
        """A span's new place. It has the whole of a mask that it begins with or before, and nothing of one that begins
        before it."""
        return self._place(start), self._place(end)

    def _place(self, place: int) -> int:
        behind = bisect_right(self.starts, place - 1)  # masks that begin before this place
        if not behind:
            return place
        return max(place, self.ends[behind - 1]) + self.shifts[behind - 1]


def _mask(kind: Kind) -> str:
    return f"[{kind.upper()}]"
