"""Rule files (`.citadel.yaml`) of a tree: of those above a file, the nearest that says something decides."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from core.errors import InvalidRules
from core.records import Labels
from ingest.rules import RULE_FILE, Rules, read_rules

MAX_RULE_BYTES = 2**20
STATE = "rule_files"  # of the source's memory: the folders that had one


class RuleFiles:
    """The rules that hold in a tree of files. Each rule file is read once."""

    def __init__(self, read: Callable[[str], bytes | None], state: Mapping[str, Any]) -> None:
        """`read` gives the bytes of a rule file by its path, or None where there is none; `state` is what was kept of
        the last refresh."""
        self._read, self._known = read, frozenset(state.get(STATE, ()))
        self._rules: dict[str, Rules | None] = {}

    def labels_for(self, path: str) -> Labels | None:
        """The labels of a file; None where no rule says any. Raises InvalidRules for a broken rule file, and for one
        that is gone: a refresh that goes on with what was listed before does not list again, which would tell."""
        parts = PurePosixPath(path).parts
        for depth in range(len(parts) - 1, -1, -1):
            rules = self.at(folder := "/".join(parts[:depth]))
            if rules is None and folder in self._known:
                raise InvalidRules(f"{folder or '.'}/{RULE_FILE} is gone, so nobody knows who may see it")
            if rules is not None and (labels := rules.labels_for("/".join(parts[depth:]))) is not None:
                return labels
        return None

    def at(self, folder: str) -> Rules | None:
        """The rules in a folder (`""`: the root); None where it has no rule file. Raises InvalidRules."""
        if folder not in self._rules:
            path = f"{folder}/{RULE_FILE}" if folder else RULE_FILE
            content = self._read(path)
            try:
                self._rules[folder] = None if content is None else read_rules(content.decode("utf-8-sig"))
            except UnicodeDecodeError as error:
                raise InvalidRules(f"{path} must be a file of UTF-8 text: {error}") from error
            except InvalidRules as error:
                raise InvalidRules(f"{folder}/: {error}" if folder else str(error)) from error
        return self._rules[folder]

    def state(self) -> dict[str, Any]:
        """The folders that have a rule file, of those looked at: to notice when one is gone."""
        return {STATE: sorted(folder for folder, rules in self._rules.items() if rules is not None)}


def check_none_gone(rules: RuleFiles, state: Mapping[str, Any], folders: set[str], source: str) -> None:
    """Raises InvalidRules when a folder that is still there has lost its rule file: it may have closed files."""
    gone = [f for f in state.get(STATE, ()) if (f in folders or not f) and rules.at(f) is None]
    if gone:
        paths = ", ".join(f"{folder}/{RULE_FILE}" if folder else RULE_FILE for folder in gone[:5])
        raise InvalidRules(
            f"{paths} was there at the last refresh and is gone, so nobody knows who may see what it covered: nothing "
            f"was changed. Put it back; or, if that is right: citadel refresh {source} --allow-missing-rules"
        )
