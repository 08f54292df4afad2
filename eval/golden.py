"""Golden sets: questions, who asks them, the documents that answer them and those that must never be returned.

The native form is JSON lines, one question a line, blank lines ignored:

    {"query": "How long is parental leave?", "as": "user:ana@acme.example",
     "relevant": [{"document": "hr/leave.md", "quote": "26 weeks", "grade": 3}],
     "forbidden": ["board/minutes.pdf"], "tags": ["hr"], "id": "leave-1"}

`query`, `as` and one of `relevant` and `forbidden` are needed. A judgement names a document by its external id, and may
narrow it to a `page`, a `quote` or a `span` of its canonical text. Such labels survive another chunking.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InvalidGolden, InvalidLabel
from core.labels import check_subject

QUERY_KEYS = ("id", "query", "as", "relevant", "forbidden", "tags")
JUDGEMENT_KEYS = ("document", "quote", "page", "span", "grade")
GRADES = (1, 2, 3)
WHOLE = re.compile(r"-?[0-9]{1,3}")
TREC_TOPICS, TREC_QRELS = "topics.tsv", "qrels.txt"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A document that answers a question, and how well."""

    document: str  # external id
    grade: int = 1  # 1 to 3, the gain in nDCG; from a BEIR folder any, and 0 is judged and not relevant
    quote: str | None = None  # words of the canonical text
    page: int | None = None  # the first is 1
    span: tuple[int, int] | None = None  # of the canonical text, in code points, half-open


@dataclass(frozen=True, slots=True)
class GoldenQuery:
    """A judged question, asked by somebody."""

    id: str
    query: str
    subject: str  # the label of who asks, e.g. user:ana@acme.example
    relevant: tuple[Judgement, ...] = ()
    forbidden: tuple[str, ...] = ()  # external ids that this subject must never be given
    tags: tuple[str, ...] = ()

    def gains(self) -> dict[str, int]:
        """The grade of each judged document; the best where several of its spans are judged."""
        best: dict[str, int] = {}
        for judgement in self.relevant:
            best[judgement.document] = max(judgement.grade, best.get(judgement.document, 0))
        return best

    def answerable(self) -> bool:
        """Whether any document is relevant; if none is, the question only tests what is forbidden."""
        return any(judgement.grade > 0 for judgement in self.relevant)


@dataclass(frozen=True, slots=True)
class GoldenSet:
    """Judged questions with distinct ids, in their file's order; at least one."""

    name: str
    digest: str  # sha256 of what was read: two runs compare only over the same questions
    queries: tuple[GoldenQuery, ...]


def read_golden(path: Path, subject: str | None = None, split: str = "test") -> GoldenSet:
    """The golden set of a JSON-lines file, a BEIR folder (`queries.jsonl`, `qrels/<split>.tsv`) or a TREC folder
    (`topics.tsv` with an id, a tab and a question; `qrels.txt` with topic, iteration, document and grade).

    `subject` asks the questions that name nobody, as all of a BEIR or TREC folder do. Raises InvalidGolden, which
    names the file and the line and says what to write instead.
    """
    if path.is_dir() and (path / TREC_QRELS).is_file():
        queries = tuple(_trec(path, subject))
    else:
        queries = tuple(_beir(path, subject, split) if path.is_dir() else _native(path, subject))
    if not queries:
        raise InvalidGolden(f"{path}: holds no questions; write one JSON object a line")
    return GoldenSet(path.name, _digest(path, split), queries)


# --- native JSON lines ----------------------------------------------------------------------------------------------


def _native(path: Path, subject: str | None) -> Iterator[GoldenQuery]:
    lines: dict[str, int] = {}
    for number, line in _lines(path):
        try:
            query = _query(_only(_json(line), QUERY_KEYS, "a question"), subject)
        except (InvalidGolden, InvalidLabel) as error:
            raise InvalidGolden(f"{path}:{number}: {error}") from error
        if query.id in lines:
            raise InvalidGolden(
                f"{path}:{number}: id {query.id!r} stands on line {lines[query.id]} already; give each question an id "
                "of its own (without one it is made of `as` and `query`, so then the question itself is repeated)"
            )
        lines[query.id] = number
        yield query


def question_of(raw: object) -> GoldenQuery:
    """One line of a native file. Raises InvalidGolden and InvalidLabel."""
    return _query(_only(raw, QUERY_KEYS, "a question"), None)


def _query(raw: Mapping[str, object], subject: str | None) -> GoldenQuery:
    text = _text(raw.get("query"), "`query`")
    asker = _subject(raw.get("as", subject))
    query = GoldenQuery(
        id=_text(raw["id"], "`id`") if "id" in raw else _id_of(asker, text),
        query=text,
        subject=asker,
        relevant=tuple(_judgement(each) for each in _list(raw.get("relevant", []), "`relevant`")),
        forbidden=_texts(raw.get("forbidden", []), "`forbidden`"),
        tags=_texts(raw.get("tags", []), "`tags`"),
    )
    _check(query)
    return query


def _check(query: GoldenQuery) -> None:
    if not query.relevant and not query.forbidden:
        raise InvalidGolden("the question judges nothing: name `relevant` or `forbidden` documents")
    if both := sorted(query.gains().keys() & set(query.forbidden)):
        raise InvalidGolden(f"{both[0]!r} is relevant and forbidden at once: keep it in one of the two")
    if len(set(query.relevant)) < len(query.relevant):
        raise InvalidGolden("`relevant` says the same twice: leave one of the two out")


def _judgement(raw: object) -> Judgement:
    fields = _only(raw, JUDGEMENT_KEYS, "a judgement in `relevant`")
    return Judgement(
        document=_text(fields.get("document"), "`document` (an external id)"),
        grade=_grade(fields.get("grade", 1)),
        quote=_text(fields["quote"], "`quote`") if "quote" in fields else None,
        page=_page(fields["page"]) if "page" in fields else None,
        span=_span(fields["span"]) if "span" in fields else None,
    )


def _subject(value: object) -> str:
    if value is None:
        raise InvalidGolden('nobody asks: add "as" with who does, such as "user:ana@acme.example"')
    return check_subject(_text(value, "`as`"))


def _grade(value: object) -> int:
    if type(value) is int and value in GRADES:
        return value
    raise InvalidGolden(f"`grade` must be 1, 2 or 3, not {_shown(value)}; leave out what is not relevant")


def _page(value: object) -> int:
    if type(value) is int and value >= 1:
        return value
    raise InvalidGolden(f"`page` must be a whole number from 1, not {_shown(value)}; leave it out when unknown")


def _span(value: object) -> tuple[int, int]:
    match value:
        case [int(start), int(end)] if type(start) is type(end) is int and 0 <= start < end:
            return start, end
    raise InvalidGolden(f"`span` must be [start, end] with 0 <= start < end, not {_shown(value)}")


def _id_of(subject: str, query: str) -> str:
    """Stable while other lines come and go."""
    return "q-" + hashlib.sha256(f"{subject}\n{query}".encode()).hexdigest()[:8]


# --- BEIR folders ---------------------------------------------------------------------------------------------------


def _beir(folder: Path, subject: str | None, split: str) -> Iterator[GoldenQuery]:
    """The questions of `queries.jsonl` that the split's qrels judge; documents go by their corpus id."""
    if subject is None:
        raise InvalidGolden(
            f"{folder}: the questions of a BEIR folder name nobody who asks; give it with `--as user:…`"
        )
    path = folder / "qrels" / f"{split}.tsv"
    questions = folder / "queries.jsonl"
    yield from _joined(_subject(subject), questions, _beir_queries(questions), path, _beir_qrels(path))


def _joined(
    asker: str, questions: Path, texts: Mapping[str, str], path: Path,
    qrels: Iterator[tuple[int, tuple[str, str, int]]],
) -> Iterator[GoldenQuery]:  # fmt: skip
    """The questions that the qrels judge, in the qrels' order."""
    judged: dict[str, dict[str, int]] = {}
    for number, (query_id, document, grade) in qrels:
        if query_id not in texts:
            raise InvalidGolden(f"{path}:{number}: question {query_id!r} is not in {questions.name}: add it there")
        if document in judged.setdefault(query_id, {}):
            raise InvalidGolden(f"{path}:{number}: {document!r} is judged twice for {query_id!r}: keep one line")
        judged[query_id][document] = grade
    for query_id, grades in judged.items():
        relevant = tuple(Judgement(document, grade) for document, grade in grades.items())
        yield GoldenQuery(query_id, texts[query_id], asker, relevant)


def _beir_queries(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        try:
            query_id, text = _beir_query(_json(line))
        except InvalidGolden as error:
            raise InvalidGolden(f"{path}:{number}: {error}") from error
        if query_id in texts:
            raise InvalidGolden(f"{path}:{number}: question {query_id!r} stands there twice: keep one")
        texts[query_id] = text
    return texts


def _beir_query(raw: object) -> tuple[str, str]:
    if not isinstance(raw, dict):
        raise InvalidGolden(f'a question must be {{"_id": "…", "text": "…"}}, not {_shown(raw)}')
    return _text(raw.get("_id"), "`_id`"), _text(raw.get("text"), "`text`")


def _beir_qrels(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    for number, line in _lines(path):
        match line.split("\t"):
            case ["query-id", "corpus-id", "score"]:
                continue
            case [query_id, document, grade] if WHOLE.fullmatch(grade):
                # Below 0 (TREC uses it for spam) trec_eval's qrels cannot go; the gain is that of irrelevant: none.
                yield number, (query_id, document, max(0, int(grade)))
            case _:
                raise InvalidGolden(f"{path}:{number}: write query-id, corpus-id and a whole number, with tabs between")


# --- TREC folders ---------------------------------------------------------------------------------------------------


def _trec(folder: Path, subject: str | None) -> Iterator[GoldenQuery]:
    if subject is None:
        raise InvalidGolden(
            f"{folder}: the questions of a TREC folder name nobody who asks; give it with `--as user:…`"
        )
    path = folder / TREC_QRELS
    topics = folder / TREC_TOPICS
    yield from _joined(_subject(subject), topics, _trec_topics(topics), path, _trec_qrels(path))


def _trec_topics(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, line in _lines(path):
        topic, tab, text = line.partition("\t")
        if not tab or not topic.strip() or not text.strip() or topic.strip() in texts:
            raise InvalidGolden(f"{path}:{number}: write an id of its own, a tab and the question")
        texts[topic.strip()] = _text(text.strip(), "the question")
    return texts


def _trec_qrels(path: Path) -> Iterator[tuple[int, tuple[str, str, int]]]:
    for number, line in _lines(path):
        match line.split():
            case [topic, _, document, grade] if WHOLE.fullmatch(grade):
                yield number, (topic, document, max(0, int(grade)))
            case _:
                raise InvalidGolden(f"{path}:{number}: write topic, 0, document and a whole number")


def read_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The numbered values of a file of JSON lines. Raises InvalidGolden, which names file and line."""
    for number, line in _lines(path):
        try:
            yield number, _json(line)
        except InvalidGolden as error:
            raise InvalidGolden(f"{path}:{number}: {error}") from error


# --- values ---------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The numbered lines that are not blank. Split at newlines alone: JSON strings may hold Unicode's other ones."""
    content = _read(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = content.count(b"\n", 0, error.start) + 1
        raise InvalidGolden(f"{path}:{at}: is not UTF-8; save the file as UTF-8") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidGolden(
            f"{path}: cannot be read ({error.strerror}); give a JSON-lines file or a BEIR folder"
        ) from error


def _digest(path: Path, split: str) -> str:
    parts: tuple[Path, ...] = (path,)
    if path.is_dir():
        trec = (path / TREC_QRELS).is_file()
        parts = (path / TREC_TOPICS, path / TREC_QRELS) if trec else (
            path / "queries.jsonl", path / "qrels" / f"{split}.tsv")  # fmt: skip
    return hashlib.sha256(b"".join(_read(part) for part in parts)).hexdigest()


def _json(line: str) -> object:
    try:
        return json.loads(line, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        raise InvalidGolden(f"is not JSON ({error}); write one object a line") from error


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise InvalidGolden(f"a key stands twice in {_shown(fields)}: keep one")
    return fields


def _only(raw: object, known: Sequence[str], what: str) -> Mapping[str, object]:
    if not isinstance(raw, dict):
        raise InvalidGolden(f"{what} must be an object with {', '.join(known)}, not {_shown(raw)}")
    if "suggested" in raw:
        raise InvalidGolden("is a suggestion, which nobody has confirmed: `citadel golden review` takes this file")
    if unknown := [key for key in raw if key not in known]:
        raise InvalidGolden(f"{what} has the unknown key {unknown[0][:40]!r}: choose from {', '.join(known)}")
    return raw


def _list(value: object, what: str) -> list[object]:
    if isinstance(value, list):
        return value
    raise InvalidGolden(f"{what} must be a list, not {_shown(value)}")


def _texts(value: object, what: str) -> tuple[str, ...]:
    texts = tuple(_text(each, f"each of {what}") for each in _list(value, what))
    if len(set(texts)) < len(texts):
        raise InvalidGolden(f"{what} names the same twice: leave one out")
    return texts


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidGolden(f"{what} must be text that is not blank, not {_shown(value)}")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidGolden(f"{what} holds a NUL or half a surrogate pair, which no document can: {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """The value as JSON writes it, cut to what fits a message."""
    written = "nothing" if value is None else json.dumps(value)
    return written if len(written) <= 60 else written[:57] + "…"
