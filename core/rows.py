"""How rows of a sheet are named in the path of what is found there."""

import re
from collections.abc import Sequence

_RANGE = re.compile(r"rows? (\d+)(?:–(\d+))?")


def row_range(first: int, last: int) -> str:
    """The last step of a heading path into a sheet."""
    return f"row {first}" if first == last else f"rows {first}–{last}"


def joined_rows(steps: Sequence[str]) -> str | None:
    """The rows from the first to the last of these ranges; None when one of them is none."""
    found = [_RANGE.fullmatch(step) for step in steps]
    ranges = [(int(each[1]), int(each[2] or each[1])) for each in found if each]
    if not steps or len(ranges) < len(steps):
        return None
    return row_range(min(first for first, _ in ranges), max(last for _, last in ranges))
