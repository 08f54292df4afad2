"""Search filters, as SQL over `documents d`.

    {"source": "handbook", "metadata.team": {"$in": ["ops", "it"]}, "$or": [{"title": …}, {"updated_at": {"$gte": …}}]}

Fields side by side mean `$and`. A filter only ever narrows what the caller's scope shows.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from psycopg import sql
from psycopg.abc import AdaptContext
from psycopg.types.json import Jsonb

from core.errors import InvalidFilter

FIELDS = {
    "source": "(SELECT s.name FROM sources s WHERE s.id = d.source_id)",
    "external_id": "d.external_id",
    "title": "d.title",
    "uri": "d.uri",
    "mime_type": "(SELECT v.mime_type FROM versions v WHERE v.document_id = d.id AND v.version = d.current_version)",
    "language": "(SELECT v.language FROM versions v WHERE v.document_id = d.id AND v.version = d.current_version)",
    "created_at": "d.created_at",
    "updated_at": "d.updated_at",
}
# A kind of flag that lies on the current text.
FLAGGED = """
    (SELECT v.flags @> jsonb_build_array(jsonb_build_object('kind', {}::text))
     FROM versions v WHERE v.document_id = d.id AND v.version = d.current_version)
"""
COMPARE = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
OPERATORS = ("$eq", "$ne", "$in", *COMPARE)
MAX_DEPTH = 8
MAX_TERMS = 100
MAX_NESTING = 4 * MAX_DEPTH  # of the JSON itself: a group takes two levels, a condition up to two more


class Value(sql.Literal):
    """A literal in a statement that also has parameters, to which a percent sign would be a placeholder."""

    def as_bytes(self, context: AdaptContext | None = None) -> bytes:
        return super().as_bytes(context).replace(b"%", b"%%")


def compile_filter(filters: dict[str, Any] | None) -> sql.Composable | None:
    """The condition, or None when there is nothing to filter. Raises InvalidFilter, naming the part to mend."""
    if not filters:
        return None
    if _terms(filters, MAX_NESTING) > MAX_TERMS:
        raise InvalidFilter(f"a filter may have up to {MAX_TERMS} terms")
    return _all_of(filters, 0)


def _terms(node: Any, levels: int) -> int:
    if levels == 0:
        raise InvalidFilter(f"a filter may nest {MAX_DEPTH} deep")
    parts = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return sum(_terms(part, levels - 1) for part in parts) or 1


def _all_of(node: Any, depth: int) -> sql.Composable:
    if not isinstance(node, dict) or not node:
        raise InvalidFilter(f"a filter is an object of fields and conditions, not {_show(node)}")
    if depth > MAX_DEPTH:
        raise InvalidFilter(f"a filter may nest {MAX_DEPTH} deep")
    return _join(" AND ", [_part(key, value, depth) for key, value in node.items()])


def _part(key: str, value: Any, depth: int) -> sql.Composable:
    if key in ("$and", "$or"):
        if not isinstance(value, list) or not value:
            raise InvalidFilter(f"{key} takes a list of filters, not {_show(value)}")
        return _join(" AND " if key == "$and" else " OR ", [_all_of(each, depth + 1) for each in value])
    if key.startswith("$"):
        raise InvalidFilter(f"unknown operator {key[:40]!r}: at this place use $and or $or")
    conditions = value if isinstance(value, dict) else {"$eq": value}
    if not conditions:
        raise InvalidFilter(f"{key[:80]!r} needs a condition such as {{'$eq': …}}")
    return _join(" AND ", [_condition(key, operator, operand) for operator, operand in conditions.items()])


def _condition(field: str, operator: str, operand: Any) -> sql.Composable:
    if operator not in OPERATORS:
        raise InvalidFilter(f"unknown operator {operator[:40]!r}: choose from {', '.join(OPERATORS)}, $and, $or")
    operands = operand if operator == "$in" else [operand]
    if not isinstance(operands, list) or not operands:
        raise InvalidFilter(f"$in takes a list with at least one value, not {_show(operand)}")
    compare = _field(field)
    tested = _join(" OR ", [compare(COMPARE.get(operator, "="), each) for each in operands])
    return sql.SQL("({}) IS NOT TRUE").format(tested) if operator == "$ne" else tested


def _field(field: str) -> Callable[[str, Any], sql.Composable]:
    """How one value of this field is compared: a function of SQL operator and operand."""
    if field.startswith("metadata.") and len(field) > len("metadata."):
        path = _text(field).split(".")[1:]
        return lambda operator, operand: _compare_metadata(path, operator, operand)
    if field in FIELDS:
        return lambda operator, operand: _compare_column(field, operator, operand)
    if field == "flags":
        return _compare_flags
    raise InvalidFilter(f"unknown field {field[:80]!r}: choose from {', '.join(FIELDS)}, flags, metadata.<key>")


def _compare_flags(operator: str, operand: Any) -> sql.Composable:
    """Whether the document has a flag of the kind."""
    if operator != "=" or not isinstance(operand, str):
        raise InvalidFilter("flags are compared with kinds of them, by $eq, $ne and $in")
    return sql.SQL(FLAGGED).format(Value(_text(operand)))


def _compare_column(field: str, operator: str, operand: Any) -> sql.Composable:
    if not isinstance(operand, str):
        raise InvalidFilter(f"{field} is compared with text, not {_show(operand)}")
    if field.endswith("_at"):
        return sql.SQL(f"{FIELDS[field]} {operator} {{}}").format(Value(_time(field, operand)))
    return sql.SQL(f'{FIELDS[field]} COLLATE "C" {operator} {{}}').format(Value(_text(operand)))


def _compare_metadata(path: list[str], operator: str, operand: Any) -> sql.Composable:
    if operand is not None and not isinstance(operand, str | int | float | bool):
        raise InvalidFilter(f"metadata is compared with text, numbers, true, false or null, not {_show(operand)}")
    value, at = Value(Jsonb(_text(operand) if isinstance(operand, str) else operand)), Value(path)
    if operator == "=":
        return sql.SQL("d.metadata #> {} = {}").format(at, value)
    # jsonb orders numbers as numbers and text as text, and never compares the one with the other
    return sql.SQL("jsonb_typeof(d.metadata #> {}) = jsonb_typeof({}) AND d.metadata #> {} " + operator + " {}").format(
        at, value, at, value
    )


def _text(text: str) -> str:
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        raise InvalidFilter("text in a filter may hold neither NUL nor lone surrogates")
    return text


def _time(field: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidFilter(f"{field} is compared with an ISO 8601 time, not {_show(text)}") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)  # else it would be the server's zone


def _join(word: str, parts: list[sql.Composable]) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(word).join(parts))


def _show(value: Any) -> str:
    return repr(value)[:80]
