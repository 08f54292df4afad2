"""YAML and TOML as people write them about access: no aliases, no tags, no key twice, and only values that JSON holds.

A refresh reads front matter in its own process, and anybody who may add a file writes it. A key that stands twice would
drop a `deny` without a word, and nine aliases of nine aliases would fill the worker's memory.
"""

import math
import tomllib
from collections.abc import Callable
from datetime import date, time
from typing import Any

import yaml

from core.errors import InvalidRules


def read_yaml(text: str, where: str) -> Any:
    """The document's value. Raises InvalidRules, which begins with `where`."""
    return _read(_load_yaml, text, where, "YAML")


def read_toml(text: str, where: str) -> Any:
    """The document's table. Raises InvalidRules, which begins with `where`."""
    return _read(tomllib.loads, text, where, "TOML")


def _load_yaml(text: str) -> object:
    return yaml.load(text, _Loader)  # noqa: S506 it is a SafeLoader


def _read(load: Callable[[str], object], text: str, where: str, language: str) -> Any:
    try:
        return _plain(load(text))
    except InvalidRules as error:
        raise InvalidRules(f"{where}: {error}") from error
    except RecursionError as error:
        raise InvalidRules(f"{where} is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # ValueError: such as the 30th of February
        raise InvalidRules(f"{where} is not {language}: {str(error)[:500]}") from error


def _plain(value: object) -> Any:
    """The value with times as ISO 8601 and every key as text. Raises InvalidRules for what JSON cannot hold."""
    match value:
        case None | bool() | int():
            return value
        case str():
            return _storable(value)
        case float() if math.isfinite(value):
            return value
        case date() | time():
            return value.isoformat()
        case list():
            return [_plain(each) for each in value]
        case dict():
            return {_storable(str(_plain(key))): _plain(each) for key, each in value.items()}
    raise InvalidRules(f"{str(value)[:40]!r} is no text, number, date, list or mapping")


def _storable(text: str) -> str:
    if "\0" in text or not text.isprintable() and any("\ud800" <= character <= "\udfff" for character in text):
        raise InvalidRules(f"{text[:40]!a} holds NUL or half a character")
    return text


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases and tags, to which a key that stands twice is an error."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRules("an alias (`*name`) is not read here: write it out")
        if getattr(event, "tag", None) is not None:
            raise InvalidRules("a tag (`!name`) is not read here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for position, (_, name) in enumerate(keys):
            if keys[position] in keys[:position]:
                raise InvalidRules(f"{name[:40]!r} stands twice")
        return super().construct_mapping(node, deep)
