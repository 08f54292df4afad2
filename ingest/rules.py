"""Who may see a file: a folder's rule file (`.citadel.yaml`) and a markdown file's own front matter.

version: 1
default: {allow: [group:staff]}
rules:                              # the last rule whose pattern matches decides, whole
  - path: "finance/**"
    allow: [group:finance]
    classification: confidential
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from core.errors import InvalidLabel, InvalidRules
from core.labels import make_labels
from core.records import Labels

RULE_FILE = ".citadel.yaml"
_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|\Z)", re.DOTALL)
_LABEL_KEYS = {"allow", "deny", "classification"}


@dataclass(frozen=True, slots=True)
class Rule:
    """A path pattern and the labels of what it matches."""

    path: str
    labels: Labels

    def matches(self, path: str) -> bool:
        """Whether the pattern covers this path: `**` crosses folders, `*` and `?` do not."""
        return _pattern(self.path).fullmatch(path) is not None


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
    content = _yaml(text, RULE_FILE)
    if not isinstance(content, dict) or content.get("version") != 1:
        raise InvalidRules(f"{RULE_FILE} must be a mapping that starts with `version: 1`")
    if unknown := set(content) - {"version", "default", "rules"}:
        raise InvalidRules(f"{RULE_FILE}: unknown keys {sorted(unknown)}")
    entries = content.get("rules") or []
    if not isinstance(entries, list):
        raise InvalidRules(f"{RULE_FILE}: `rules` must be a list")
    default = content.get("default")
    return Rules(
        default=None if default is None else _labels(default, "default"),
        rules=tuple(_rule(entry, number) for number, entry in enumerate(entries, start=1)),
    )


def read_front_matter(text: str) -> FrontMatter:
    """What stands between the leading `---` lines; empty when there are none. Raises InvalidRules."""
    found = _FRONT_MATTER.match(text)
    content = _yaml(found.group(1), "front matter") if found else None
    if not isinstance(content, dict):
        return FrontMatter()
    labels, title, metadata = content.get("labels"), content.get("title"), content.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise InvalidRules("front matter: `metadata` must be a mapping")
    return FrontMatter(
        title=None if title is None else str(title),
        labels=None if labels is None else _labels(labels, "front matter"),
        metadata=metadata,
    )


def _rule(entry: Any, number: int) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        raise InvalidRules(f"{RULE_FILE}: rule {number} needs a `path` pattern")
    labels = {key: value for key, value in entry.items() if key != "path"}
    return Rule(entry["path"], _labels(labels, f"rule {number}"))


def _labels(content: Any, where: str) -> Labels:
    if not isinstance(content, dict) or set(content) - _LABEL_KEYS:
        raise InvalidRules(f"{where}: labels are `allow`, `deny` and `classification`, not {content!r}")
    lists = [content.get(key) or [] for key in ("allow", "deny")]
    if not all(isinstance(each, list) and all(isinstance(label, str) for label in each) for each in lists):
        raise InvalidRules(f"{where}: `allow` and `deny` are lists of labels")
    try:
        return make_labels(lists[0], lists[1], str(content.get("classification", "internal")))
    except InvalidLabel as error:
        raise InvalidRules(f"{where}: {error}") from error


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidRules(f"{where} is not YAML: {error}") from error


def _pattern(glob: str) -> re.Pattern[str]:
    parts = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(parts.get(token, re.escape(token)) for token in tokens), re.DOTALL)
