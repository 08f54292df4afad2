"""What a source's configuration may hold, and its secrets: by reference there, and hidden in what is told of errors."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

from core.config import secret
from core.errors import CitadelError, Invalid, SourceUnavailable
from core.labels import make_labels
from core.records import Labels, Source

_SOUNDS_SECRET = re.compile(
    r"pass|secret|token|credential|private|connection_string|sas|api_?key|account_key|^key$", re.I
)
_BETWEEN = re.compile(r"[\s,]+")


def checked(source: Source, required: Sequence[str], optional: Mapping[str, type]) -> dict[str, Any]:
    """The configuration: `required` texts, and `optional` values of these types. Raises Invalid."""
    config = source.config
    kinds: dict[str, type] = dict.fromkeys(required, str) | dict(optional)
    if unknown := set(config) - set(kinds):
        known = ", ".join(kinds)
        raise Invalid(f"a source of kind {source.kind} knows {known}, not {', '.join(sorted(unknown))[:200]}")
    if lacking := [key for key in required if not config.get(key)]:
        raise Invalid(f"a source of kind {source.kind} needs {', '.join(lacking)}")
    for key, value in config.items():
        if not isinstance(value, (int, float) if kinds[key] is float else kinds[key]) or isinstance(value, bool) != (
            kinds[key] is bool
        ):
            raise Invalid(f"`{key}` of source {source.name!r} must be a {kinds[key].__name__}")
    return dict(config)


def check_url(url: str) -> str:
    """The URL itself. Raises Invalid for one with a password, which would stand in the database in clear."""
    try:
        password = urlsplit(url.rpartition("::")[2]).password
    except ValueError as error:
        raise Invalid(f"{url[:80]!r} is no URL") from error
    if password is not None:
        raise Invalid("a URL must not hold a password: give it with --secret, as env:NAME or file:/path")
    return url


class Secrets:
    """A source's secrets by their names, read where they are used."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Checks the references of `secrets`, and that what libraries are called with holds none in clear. Raises
        Invalid."""
        references = config.get("secrets") or {}
        for name, reference in references.items():
            if not isinstance(reference, str) or not re.match(r"env:.|file:/.", reference):
                raise Invalid(f"the secret {name!r} must be given by reference: env:NAME or file:/path")
        told = [name for part in ("options", "init", "load") for name in config.get(part) or {}]
        if plain := [name for name in told if _SOUNDS_SECRET.search(name)]:
            raise Invalid(f"{', '.join(plain)}: give it with --secret, as env:NAME or file:/path, not in clear")
        self._references: dict[str, str] = dict(references)

    def __contains__(self, name: str) -> bool:
        return name in self._references

    def values(self) -> dict[str, str]:
        """The secrets by name. Raises Misconfigured."""
        return {name: secret(reference) for name, reference in self._references.items()}

    def get(self, name: str) -> str | None:
        """One secret; None where the configuration has none. Raises Misconfigured."""
        return secret(self._references[name]) if name in self._references else None

    def redact(self, text: str) -> str:
        """The text without any of the secrets."""
        for value in sorted(self.values().values(), key=len, reverse=True):
            text = text.replace(value, "[secret]").replace(quote(value, safe=""), "[secret]")
        return text

    @contextmanager
    def asking(self, whom: str, *errors: type[Exception]) -> Iterator[None]:
        """What another's library raises, as SourceUnavailable and without the secrets; what is absent stays that."""
        try:
            yield
        except CitadelError:
            raise
        except FileNotFoundError as error:
            raise FileNotFoundError(self.redact(str(error))[:500]) from None
        except errors as error:  # its cause may tell a secret: it is not chained
            raise SourceUnavailable(f"{whom}: {type(error).__name__}: {self.redact(str(error))[:500]}") from None


def labels_of(value: Any, classification: str, deny: Any = None) -> Labels:
    """Labels of a list, or of text with blanks or commas between. Raises Invalid for None: nobody knows who may."""
    if value is None:
        raise Invalid("it has no labels, so nobody knows who may see it")
    return make_labels(_words(value), _words(deny or ()), classification)


def _words(value: Any) -> list[str]:
    if isinstance(value, str):
        return [word for word in _BETWEEN.split(value.strip()) if word]
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return list(value)
    raise Invalid(f"labels are a list, or text with blanks or commas between, not {str(value)[:80]!r}")
