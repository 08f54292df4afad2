"""Access labels: namespaced strings such as `user:ana@acme.example`, `group:finance`, and `public`."""

import re
from collections.abc import Iterable

from core.errors import InvalidLabel
from core.records import Labels

PUBLIC = "public"
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,31}:[^\s,\x00-\x1f\x7f]{1,200}")


def check_label(label: str) -> str:
    """The label itself. Raises InvalidLabel unless it is `public` or `namespace:value`."""
    if label == PUBLIC or _LABEL.fullmatch(label):
        return label
    raise InvalidLabel(
        f"{label[:80]!r} is not an access label: write `public`, or a namespace and a value such as `group:finance`"
    )


def make_labels(allow: Iterable[str] = (), deny: Iterable[str] = (), classification: str = "internal") -> Labels:
    """A checked, sorted label set without repeats. Raises InvalidLabel."""
    return Labels(
        allow=tuple(sorted({check_label(label) for label in allow})),
        deny=tuple(sorted({check_label(label) for label in deny})),
        classification=classification,
    )
