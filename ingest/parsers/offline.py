"""`unstructured` made to stay at home: no download, no telemetry, and no model decides what the text is.

On first use it fetches a spaCy model, and it reports each call to its makers. All it asks the model for is whether a
paragraph is prose or a title; headings are taken from styles and tags here, never from such a guess. So the guess is
turned off and spaCy is not even imported: the same file gives the same text on every machine, and a parser's process,
which is forked for each document, is 130 MB smaller (a fork takes 8 ms, not 17).
"""

import os
import sys
import types
from functools import cache
from typing import Any

ENVIRONMENT = {"SCARF_NO_ANALYTICS": "true", "DO_NOT_TRACK": "true", "UNSTRUCTURED_DISABLE_NOTICE": "1"}
# What only the guess uses, and what is imported from it: 75 MB of spaCy, 55 MB of English words.
_UNUSED: dict[str, dict[str, Any]] = {"spacy": {}, "unstructured.nlp.english_words": {"ENGLISH_WORDS": frozenset()}}


@cache
def prepare() -> None:
    """Patch `unstructured` in this process, once, before its first use."""
    os.environ.update(ENVIRONMENT)
    absent = [name for name in _UNUSED if name not in sys.modules]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(_UNUSED[name])
    try:
        _patch()
    finally:
        for name in absent:
            del sys.modules[name]


def _patch() -> None:
    import unstructured.nlp.tokenize as tokenize
    import unstructured.partition.docx as docx
    import unstructured.partition.html.parser as html
    import unstructured.partition.pptx as pptx
    from unstructured.documents.elements import Text

    _replace(tokenize, "_get_nlp", _no_guess)
    # The classifier also drops paragraphs of one character and takes "-5" for a bullet.
    _replace(html, "derive_element_type_from_text", lambda text: Text)
    for module in (docx, pptx):
        _replace(module, "is_possible_narrative_text", lambda text: False)
    _replace(pptx, "is_possible_title", lambda text: False)


def _no_guess() -> None:
    raise AssertionError("a version of unstructured guesses where it did not")


def _replace(module: Any, name: str, value: Any) -> None:
    """Set what is there; an AttributeError here means that a new version of `unstructured` moved it."""
    getattr(module, name)
    setattr(module, name, value)
