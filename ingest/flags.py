"""Which chunks lie under the flags that a parser set on the text."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from core.flags import Flag
from core.records import Chunk


def flagged(chunks: Sequence[Chunk], flags: Sequence[Flag]) -> tuple[Chunk, ...]:
    """The chunks, each with the kinds of the flags that share a character with it. Flags of a kind lie apart."""
    if not flags:
        return tuple(chunks)
    by_kind: dict[str, list[Flag]] = defaultdict(list)
    for flag in flags:
        by_kind[flag.kind].append(flag)
    return tuple(
        replace(chunk, flags=tuple(kind for kind, spans in sorted(by_kind.items()) if _touched(chunk, spans)))
        for chunk in chunks
    )


def _touched(chunk: Chunk, spans: Sequence[Flag]) -> bool:
    """Whether one of the spans, in order and apart, shares a character with the chunk."""
    first = bisect_right(spans, chunk.start, key=lambda span: span.end)
    return first < len(spans) and spans[first].start < chunk.end
