"""A file of agents' answers: JSON lines, one answer a line, with the citations as the search gave them.

    {"id": "leave-1", "query": "How long is parental leave?", "as": "user:ana@acme.example",
     "answer": "It is 26 weeks [1].",
     "citations": [{"marker": "[1]", "document_id": "8c5f…", "version": 1, "start": 0, "end": 412}]}

`passages`, as `POST /v1/search` answers them, may stand instead of `citations`; a citation without a `document_id` is
of the current version of the document of its `external_id`, from `start` to `end` or whole. `id` may be left out.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from core.errors import Invalid, InvalidLabel
from core.labels import check_subject
from core.records import Place
from eval.grounding import AgentAnswer
from store.documents import MAX_OFFSET, Span

KEYS = frozenset(("id", "query", "as", "answer", "citations", "passages", "request_id", "tags"))
_MARKER = re.compile(r"\[?(\d{1,3})\]?")


def read_answers(path: Path) -> tuple[AgentAnswer, ...]:
    """The file's answers in its order. Raises Invalid, which names the line and says what to write instead."""
    answers = []
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        if line.strip():
            try:
                answers.append(_answer(json.loads(line), str(number)))
            except json.JSONDecodeError as error:
                raise Invalid(f"{path}:{number}: this is no JSON: {error.msg}") from error
            except (Invalid, InvalidLabel) as error:
                raise Invalid(f"{path}:{number}: {error}") from error
    if not answers:
        raise Invalid(f"{path}: holds no answers; write one JSON object a line")
    return tuple(answers)


def _answer(raw: Any, number: str) -> AgentAnswer:
    if not isinstance(raw, dict) or raw.keys() - KEYS:
        raise Invalid(f"an answer is an object of {', '.join(sorted(KEYS))}")
    for name in ("query", "as", "answer"):
        if not isinstance(raw.get(name), str):
            raise Invalid(f"`{name}` is missing, or no text")
    if not ("citations" in raw or "passages" in raw):
        raise Invalid("give `citations`, or `passages`, as the search answered them; an empty list where it gave none")
    return AgentAnswer(str(raw.get("id", number)), raw["query"], check_subject(raw["as"]), raw["answer"],
                       dict(_citations(raw)))  # fmt: skip


def _citations(raw: Mapping[str, Any]) -> Iterator[tuple[int, Span | Place]]:
    given = raw.get("citations", raw.get("passages"))
    if not isinstance(given, list):
        raise Invalid("`citations` is a list")
    for place, each in enumerate(given, start=1):
        citation = each.get("citation", each) if isinstance(each, dict) else None
        if not isinstance(citation, dict):
            raise Invalid(f"citation {place} is no object")
        try:
            yield _marker(citation.get("marker", place)), _cited(citation)
        except Invalid as error:
            raise Invalid(f"citation {place}: {error}") from error


def _marker(raw: Any) -> int:
    found = _MARKER.fullmatch(str(raw))
    if found is None:
        raise Invalid(f"a marker is a number in brackets, such as [1]; not {str(raw)[:40]!r}")
    return int(found[1])


def _cited(citation: Mapping[str, Any]) -> Span | Place:
    if "document_id" not in citation and isinstance(citation.get("external_id"), str):
        return Place(citation["external_id"], *_offsets(citation.get("start", 0), citation.get("end", MAX_OFFSET)))
    try:
        document_id = UUID(str(citation["document_id"]))
        version, start, end = (citation[name] for name in ("version", "start", "end"))
    except (KeyError, ValueError) as error:
        raise Invalid("give document_id, version, start and end, as the search did, or external_id") from error
    if not isinstance(version, int) or not 0 < version < MAX_OFFSET:
        raise Invalid("version is a whole number from 1 on")
    return Span(document_id, version, *_offsets(start, end))


def _offsets(start: Any, end: Any) -> tuple[int, int]:
    if not (isinstance(start, int) and isinstance(end, int) and 0 <= start <= end <= MAX_OFFSET):
        raise Invalid("start and end are whole numbers, and start is not behind end")
    return start, end
