"""Which places an operator of one tenant may name over the API: those that whoever runs the installation listed.

The workers read a source with their own rights and credentials, the blobs of every tenant among what they may read:
somebody who only has an operator's key of one tenant must not point them anywhere.
"""

import os
import posixpath
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from core.errors import Invalid

# What else may be set over the API, by kind; secrets, options and intranet hosts are for the command line.
SETTABLE: dict[str, frozenset[str]] = {
    "folder": frozenset({"uri_prefix"}),
    "files": frozenset({"uri_prefix", "max_bytes", "rules"}),
    "git": frozenset({"branch", "folder", "owners", "owner_labels", "uri_prefix", "max_bytes"}),
    "website": frozenset({"max_pages", "max_bytes", "links", "queries", "delay_s"}),
}


def check_root(path: str, roots: Sequence[Path]) -> None:
    """Raises Invalid unless the folder lies below one of the roots."""
    place = Path(os.path.normpath(path))
    if not place.is_absolute() or not any(place.is_relative_to(os.path.normpath(root)) for root in roots):
        raise Invalid(
            f"the folder {path[:200]!r} is not below a source root of this installation: whoever runs it names those "
            "in CITADEL_SOURCE_ROOTS, or adds the source with `citadel sources add`"
        )


def check_place(url: str, allowed: Sequence[str]) -> None:
    """Raises Invalid unless the URL has the scheme and host of one of those allowed, and a path below its path."""
    if not any(_is_below(url, place) for place in allowed):
        raise Invalid(
            f"{url[:200]!r} is not below an address that this installation allows: whoever runs it names those in "
            "CITADEL_SOURCE_URLS, or adds the source with `citadel sources add`"
        )


def check_settings(kind: str, settings: dict[str, Any]) -> None:
    """Raises Invalid for a setting that only whoever runs the installation may make."""
    if beyond := sorted(set(settings) - SETTABLE[kind]):
        raise Invalid(f"{', '.join(beyond)[:200]}: not to be set over the API; use `citadel sources add`")


def _is_below(url: str, allowed: str) -> bool:
    try:
        asked, place = urlsplit(url), urlsplit(allowed)
        same = (asked.scheme, asked.hostname, asked.port) == (place.scheme, place.hostname, place.port)
    except ValueError:
        return False
    if not same or not place.hostname or "::" in url or "@" in asked.netloc or asked.query or asked.fragment:
        return False
    path = unquote(asked.path or "/")
    if posixpath.normpath(path) != (path.rstrip("/") or "/") or "\\" in path or "\0" in path:
        return False
    return f"{path.rstrip('/')}/".startswith(f"{place.path.rstrip('/')}/")
