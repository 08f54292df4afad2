"""Where the front matter of a markdown text ends: it is left out of what is read, and says who may see the rest."""

import re

# Only when its first line is a key: two thematic breaks around prose are no front matter.
_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?=[ \t]*(?:#|[\"'\w][^\n]*[:=]|\1))(?:[^\n]*\n)*?\1[ \t]*(?:\n|\Z)")


def front_matter_end(text: str) -> int:
    """The offset of the first character after it; 0 when there is none. `text` is clean."""
    found = _FRONT_MATTER.match(text)
    return found.end() if found else 0
