"""The file of suggestions: golden questions, each judgement of which somebody confirms, rejects or leaves for later.

    {"query": "…", "as": "user:ana@acme.example", "tags": ["feedback"], "relevant": [{"document": "hr/leave.md",
     "quote": "26 weeks", "grade": 2, "heading": ["Leave"], "suggested": "was used, and the answer helped",
     "confirmed": null}], "suggested": {"requests": ["…"], "said": ["the answer helped"]}}

`confirmed` is null until it is true or false, by `citadel golden review` or by an editor; the grade, the quote and the
question may be changed as well. What is confirmed becomes golden; the rest never does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InvalidGolden, InvalidLabel
from eval import exchange
from eval.golden import JUDGEMENT_KEYS, GoldenQuery, GoldenSet, question_of, read_lines
from eval.suggest import Suggested, Suggestion

Line = dict[str, Any]
OWN = ("heading", "shown", "suggested", "confirmed")  # of a judgement, beside what a golden one has


@dataclass(frozen=True, slots=True)
class Place:
    """A judgement of the file: which line's, and which of its."""

    line: int
    judgement: int


def read(path: Path) -> list[Line]:
    """The file's lines; none when there is no file. Raises InvalidGolden, which names the line."""
    if not path.exists():
        return []
    lines = []
    for number, line in read_lines(path):
        if not isinstance(line, dict) or "suggested" not in line or not isinstance(line.get("relevant"), list):
            raise InvalidGolden(f"{path}:{number}: is no suggestion; `citadel golden suggest` writes such files")
        for judgement in line["relevant"]:
            if not isinstance(judgement, dict) or judgement.get("confirmed", "") not in (None, True, False):
                raise InvalidGolden(f"{path}:{number}: `confirmed` is true, false, or null for later")
        lines.append(line)
    return lines


def write(path: Path, lines: Sequence[Line]) -> None:
    """Replace the file as a whole, so that no interruption leaves half of it. Readable by its owner alone."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.touch(mode=0o600, exist_ok=False)
    with beside.open("w", encoding="utf-8") as opened:
        opened.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    beside.replace(path)


def merged(lines: Sequence[Line], found: Sequence[Suggested], known: GoldenSet | None = None) -> list[Line]:
    """The lines as they are, decisions and all, with what is new; not what `known` judges already."""
    old = {(line["as"], line["query"]): line for line in lines}
    golden = {(query.subject, query.query): query.gains() for query in known.queries} if known else {}
    for each in found:
        key = (each.subject, each.query)
        line = old.get(key) or _empty(each)
        there = {_identity(judgement) for judgement in line["relevant"]}
        judged = golden.get(key, {})
        fresh = [made for s in each.suggestions if s.judgement.document not in judged
                 if _identity(made := _made(s)) not in there]  # fmt: skip
        if fresh or key in old:
            old[key] = {**line, "relevant": [*line["relevant"], *fresh], "suggested": _why(line, each)}
        elif each.told and not each.suggestions:  # nothing to confirm, but somebody should read what was said
            old[key] = {**line, "suggested": _why(line, each)}
    return list(old.values())


def pending(lines: Sequence[Line]) -> list[Place]:
    """What nobody has decided on."""
    return [
        Place(n, m)
        for n, line in enumerate(lines)
        for m, judgement in enumerate(line["relevant"])
        if judgement["confirmed"] is None
    ]


def decided(lines: Sequence[Line], place: Place, confirmed: bool) -> list[Line]:
    """The lines with that decision."""
    line = lines[place.line]
    judgements = [
        {**judgement, "confirmed": confirmed} if m == place.judgement else judgement
        for m, judgement in enumerate(line["relevant"])
    ]
    return [{**line, "relevant": judgements} if n == place.line else other for n, other in enumerate(lines)]


def confirmed(lines: Sequence[Line]) -> list[GoldenQuery]:
    """The questions of which something is confirmed, with that alone. Raises InvalidGolden, which names the line."""
    return list(_confirmed(lines))


def _confirmed(lines: Sequence[Line]) -> Iterator[GoldenQuery]:
    for number, line in enumerate(lines, start=1):
        relevant = [_bare(judgement) for judgement in line["relevant"] if judgement["confirmed"] is True]
        bare = {key: value for key, value in line.items() if key not in ("suggested", "relevant")}
        if relevant:
            try:
                yield question_of({**bare, "relevant": relevant})
            except (InvalidGolden, InvalidLabel) as error:
                raise InvalidGolden(f"line {number}: {error}") from error


def joined(name: str, before: GoldenSet | None, more: Sequence[GoldenQuery]) -> GoldenSet:
    """The set with these questions, and further judgements of those that it has. Raises InvalidGolden where something
    is now relevant and forbidden at once."""
    queries = {(query.subject, query.query): query for query in (before.queries if before else ())}
    for query in more:
        key = (query.subject, query.query)
        queries[key] = _both(queries[key], query) if key in queries else query
    return GoldenSet(name, "", tuple(queries.values()))


def _both(old: GoldenQuery, new: GoldenQuery) -> GoldenQuery:
    both = exchange.to_line(old)
    known = [_identity(judgement) for judgement in both["relevant"]]
    both["relevant"] += [j for j in exchange.to_line(new)["relevant"] if _identity(j) not in known]
    both["tags"] += [tag for tag in new.tags if tag not in old.tags]
    try:
        return question_of(both)
    except InvalidGolden as error:
        raise InvalidGolden(f"{old.query!r}, asked by {old.subject}: {error}") from error


def _identity(judgement: Mapping[str, Any]) -> str:
    """What it points at, whatever its grade."""
    return json.dumps([judgement.get(key) for key in ("document", "quote", "page", "span")])


def _bare(judgement: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := [key for key in judgement if key not in (*JUDGEMENT_KEYS, *OWN)]:
        raise InvalidGolden(f"a judgement has the unknown key {unknown[0][:40]!r}")
    return {key: value for key, value in judgement.items() if key in JUDGEMENT_KEYS}


def _made(suggestion: Suggestion) -> dict[str, Any]:
    judgement = suggestion.judgement
    golden = {"document": judgement.document, "grade": judgement.grade, "quote": judgement.quote,
              "span": list(judgement.span) if judgement.span else None}  # fmt: skip
    told = {"heading": list(suggestion.heading), "shown": suggestion.shown or None, "suggested": suggestion.reason}
    return {**{key: value for key, value in {**golden, **told}.items() if value}, "confirmed": None}


def _empty(each: Suggested) -> Line:
    tags = ["feedback" if each.told else "trace"]
    return {"query": each.query, "as": each.subject, "tags": tags, "relevant": [], "suggested": {}}


def _why(line: Line, each: Suggested) -> dict[str, list[str]]:
    before = line["suggested"]
    requests = [*before.get("requests", ()), *(str(request) for request in each.requests)]
    said = [*before.get("said", ()), *each.said]
    return {"requests": list(dict.fromkeys(requests)), "said": list(dict.fromkeys(said))}
