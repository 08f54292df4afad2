"""Readers for the tests, in the form that LlamaIndex's have, without the seconds that importing those takes."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is read of a `llama_index.core.schema.Document`."""

    text: str
    metadata: dict[str, Any]


class JsonNotes:
    """A document for each note of a JSON list."""

    def load_data(self, path: str) -> list[Loaded]:
        notes = json.loads(Path(path).read_text())
        return [Loaded(note["text"], {"name": note["name"], "who": note["who"]}) for note in notes]


class Nosy:
    """Looks at its surroundings."""

    def load_data(self) -> list[Loaded]:
        return [Loaded(repr(dict(os.environ)), {})]


class Slow:
    """Never ends."""

    def load_data(self) -> list[Loaded]:
        time.sleep(600)
        return []


class Failing:
    """Tells its secret."""

    def __init__(self, token: str) -> None:
        self.token = token

    def load_data(self) -> list[Loaded]:
        raise ValueError(f"the token {self.token} is wrong")
