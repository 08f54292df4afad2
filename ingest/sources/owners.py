"""A CODEOWNERS file as access rules: the labels of a path's owners, as the operator maps owners to labels.

Patterns are read as GitHub documents them: the last line that matches decides; a pattern without a slash but at its
end matches at any depth, one with a slash from the root; a pattern matches what lies below a folder that it names, but
`docs/*` only what lies in it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from core.errors import InvalidRules
from core.labels import make_labels
from core.records import Labels


@dataclass(frozen=True, slots=True)
class Owners:
    """Lines of (pattern, owners), and the labels of owners."""

    lines: tuple[tuple[str, tuple[str, ...]], ...]
    labels: Mapping[str, str]

    @classmethod
    def read(cls, content: bytes, labels: Mapping[str, str]) -> Self:
        """The file. Raises InvalidRules for a line that has no one reading, and InvalidLabel."""
        make_labels(labels.values())
        lines = []
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidRules(f"the owners file is no UTF-8 text: {error}") from error
        for number, line in enumerate(text.splitlines(), start=1):
            words = re.split(r"\s#", line)[0].split()
            if not words or words[0].startswith("#"):
                continue
            if re.search(r"[\\!\[\]]", words[0]):
                raise InvalidRules(f"owners file, line {number}: {words[0][:80]!r} is no pattern of CODEOWNERS")
            lines.append((words[0], tuple(words[1:])))
        return cls(tuple(lines), labels)

    def labels_for(self, path: str, classification: str) -> Labels | None:
        """The labels of the path's owners, of whom one without a label opens nothing; None where no line matches."""
        for pattern, owners in reversed(self.lines):
            if _pattern(pattern).fullmatch(path):
                return make_labels([self.labels[o] for o in owners if o in self.labels], (), classification)
        return None


@lru_cache(maxsize=4096)
def _pattern(glob: str) -> re.Pattern[str]:
    anchored = "/" in glob.rstrip("/")
    folder, body = glob.endswith("/"), glob.strip("/")
    parts = {"/**/": "/(?:.+/)?", "**/": "(?:.+/)?", "/**": "/.+", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(/\*\*/|\*\*/|/\*\*|\*\*|\*|\?)", body)
    inner = "".join(parts.get(token) or re.escape(token) for token in tokens)
    below = "/.+" if folder else "" if body.endswith("/*") or body.endswith("**") else "(?:/.+)?"
    return re.compile(("" if anchored else "(?:.+/)?") + inner + below)
