"""Who may see a file: a folder's rule file (`.citadel.yaml`) and a markdown file's own front matter.

version: 1
default: {allow: [group:staff]}
rules:                              # the last rule whose pattern matches decides, whole
  - path: "finance/**"
    allow: [group:finance]
    classification: confidential
"""

import re
import unicodedata
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from core.errors import InvalidLabel, InvalidRules
from core.labels import make_labels
from core.records import Labels
from ingest.notation import read_toml, read_yaml
from ingest.parsers.canonical import clean, one_line
from ingest.parsers.decode import decode

RULE_FILE = ".citadel.yaml"
VERSION = 1
MAX_FRONT_MATTER = 64 * 1024  # characters; PyYAML takes 0.9 s for this much
# As the markdown parser tells front matter from two thematic breaks around prose: its first line is a key.
_FRONT_MATTER = re.compile(
    r"\A(?P<fence>---|\+\+\+)[ \t]*\n(?=[ \t]*(?:#|\[|[\"'\w][^\n]*[:=]|(?P=fence)))"
    r"(?P<block>(?:[^\n]*\n)*?)(?P=fence)[ \t]*(?:\n|\Z)"
)
_BEFORE = bytes({*range(0x20), *range(0x7F, 0x100)})  # marks, controls and wide encodings' zeros: cleaned away
_IMPOSSIBLE = re.compile(r"\A\Z|\A/|/\Z|//|\\|(?:\A|/)\.\.?(?:/|\Z)")
_LABEL_KEYS = {"allow", "deny", "classification"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A path pattern and the labels of what it matches."""

    path: str
    labels: Labels

    def matches(self, path: str) -> bool:
        """Whether the pattern covers this path: `**` crosses folders, `*` and `?` do not."""
        return _pattern(_composed(self.path)).fullmatch(_composed(path)) is not None


@dataclass(frozen=True, slots=True)
class Rules:
    """A folder's access rules."""

    default: Labels | None = None
    rules: tuple[Rule, ...] = ()

    def labels_for(self, path: str) -> Labels | None:
        """The labels of the last rule that matches, else the default; None when the file says nothing."""
        matching = [rule.labels for rule in self.rules if rule.matches(path)]
        return matching[-1] if matching else self.default


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a markdown file says about itself."""

    title: str | None = None
    labels: Labels | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def read_rules(text: str) -> Rules:
    """Rules from the text of a rule file. Raises InvalidRules, which names the entry to mend."""
    content = read_yaml(text, RULE_FILE)
    version = content.get("version") if isinstance(content, dict) else None
    if version is True or version != VERSION:
        raise InvalidRules(f"{RULE_FILE} must be a mapping that starts with `version: {VERSION}`")
    if unknown := set(content) - {"version", "default", "rules"}:
        raise InvalidRules(f"{RULE_FILE}: unknown keys {sorted(unknown)!s:.200}")
    entries = _or_empty(content.get("rules"))
    if not isinstance(entries, list):
        raise InvalidRules(f"{RULE_FILE}: `rules` must be a list")
    default = content.get("default")
    return Rules(
        default=None if default is None else _labels(default, "default"),
        rules=tuple(_rule(entry, number) for number, entry in enumerate(entries, start=1)),
    )


def read_front_matter(content: bytes) -> FrontMatter:
    """What a markdown file's leading block between `---` (YAML) or `+++` (TOML) lines says; empty when there is none.

    The text is decoded and cleaned as the parser does, which leaves the block out: what one sees, the other sees.
    Raises InvalidRules.
    """
    if not content[:4096].translate(None, _BEFORE).startswith((b"---", b"+++")):
        return FrontMatter()
    found = _FRONT_MATTER.match(clean(decode(content).text).text)
    if found is None or not found["block"].strip():
        return FrontMatter()
    if len(found["block"]) > MAX_FRONT_MATTER:
        raise InvalidRules(f"front matter is longer than {MAX_FRONT_MATTER} characters")
    read = read_yaml if found["fence"] == "---" else read_toml
    return _front_matter(read(found["block"], "front matter"))


def _front_matter(content: Any) -> FrontMatter:
    if content is None:  # nothing but comments
        return FrontMatter()
    if not isinstance(content, dict):
        raise InvalidRules("front matter must be a mapping")
    labels, title, metadata = content.get("labels"), content.get("title"), content.get("metadata")
    if not isinstance(metadata, dict | None):
        raise InvalidRules("front matter: `metadata` must be a mapping")
    return FrontMatter(
        title=None if title is None else one_line(str(title)) or None,
        labels=None if labels is None else _labels(labels, "front matter"),
        metadata=metadata or {},
    )


def _rule(entry: Any, number: int) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise InvalidRules(f"{RULE_FILE}: rule {number} needs a `path` pattern")
    path, labels = entry["path"], {key: value for key, value in entry.items() if key != "path"}
    if _IMPOSSIBLE.search(path) or path != path.strip():
        raise InvalidRules(
            f"{RULE_FILE}: rule {number} covers nothing: a path such as `finance/**` is relative to the folder, "
            f"without `./`, `..`, a backslash or a slash at either end, not {path[:80]!r}"
        )
    return Rule(path, _labels(labels, f"rule {number}"))


def _labels(content: Any, where: str) -> Labels:
    if not isinstance(content, dict) or set(content) - _LABEL_KEYS:
        raise InvalidRules(f"{where}: labels are `allow`, `deny` and `classification`, not {str(content)[:200]}")
    lists = [_or_empty(content.get(key)) for key in ("allow", "deny")]
    if not all(isinstance(each, list) and all(isinstance(label, str) for label in each) for each in lists):
        raise InvalidRules(f"{where}: `allow` and `deny` are lists of labels")
    try:
        return make_labels(lists[0], lists[1], str(content.get("classification", "internal")))
    except InvalidLabel as error:
        raise InvalidRules(f"{where}: {error}") from error


def _or_empty(value: Any) -> Any:
    return [] if value is None else value  # only nothing is nothing: `deny: {}` is a slip


def _composed(path: str) -> str:
    """One spelling for letters with accents: macOS writes names in another than keyboards do."""
    return unicodedata.normalize("NFC", path)


@lru_cache(maxsize=1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(parts.get(token, re.escape(token)) for token in tokens), re.DOTALL)
