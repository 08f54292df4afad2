"""Access labels: namespaced strings such as `user:ana@acme.example`, `group:finance`, and `public`."""

import re
import unicodedata
from collections.abc import Iterable

from core.errors import InvalidLabel
from core.records import Labels

PUBLIC = "public"
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})  # categories of what is blank or not seen
_LABEL = re.compile(r"[a-z][a-z0-9_-]{0,31}:[^\s,\x00-\x1f\x7f]{1,200}")


def check_label(label: str) -> str:
    """The label in NFC, so that canonically equivalent spellings (Unicode, D70) are one label; use what is returned.

    Case counts. Raises InvalidLabel unless it is `public` or `namespace:value`.
    """
    composed = unicodedata.normalize("NFC", label)
    if composed == PUBLIC or _LABEL.fullmatch(composed):
        return composed
    raise InvalidLabel(
        f"{label[:80]!r} is not an access label: write `public`, or a namespace and a value such as `group:finance`"
    )


def check_subject(label: str) -> str:
    """The label, as `check_label` gives it, of who asks. Raises InvalidLabel unless it names a user or a service."""
    subject = check_label(label)
    if not subject.startswith(("user:", "service:")):
        raise InvalidLabel(f"{label[:80]!r} does not ask: name a user or a service, such as user:ana@acme.example")
    return subject


def name_label(prefix: str, name: str) -> str:
    """The label for a name that a directory gave: `group:Sales%20Team` for `Sales Team`. Raises InvalidLabel.

    Names that differ, differ as labels: what a label cannot hold, or hides from the eye (blanks, commas, control and
    format characters), is percent-encoded (RFC 3986, 2.1), and so is `%` itself; in lower case, so that a folded label
    is the label of a folded name. Canonically equivalent Unicode is one name (NFC).
    """
    return check_label(prefix + "".join(map(_encoded, unicodedata.normalize("NFC", name))))


def fold(name: str) -> str:
    """The name as names are compared that ignore case (RFC 7643, 2.2: `caseExact` false)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def _encoded(character: str) -> str:
    if character in ",%" or unicodedata.category(character) in _HIDDEN:
        return "".join(f"%{byte:02x}" for byte in character.encode(errors="surrogatepass"))
    return character


def make_labels(allow: Iterable[str] = (), deny: Iterable[str] = (), classification: str = "internal") -> Labels:
    """A checked, sorted label set without repeats. Raises InvalidLabel."""
    return Labels(
        allow=tuple(sorted({check_label(label) for label in allow})),
        deny=tuple(sorted({check_label(label) for label in deny})),
        classification=classification,
    )
