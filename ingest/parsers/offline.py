"""`unstructured` made to stay at home: no download, no telemetry, and no model decides what the text is.

On first use it fetches a spaCy model, and it reports each call to its makers. All it asks the model for is whether a
paragraph is prose or a title; headings are taken from styles and tags here, never from such a guess. So the guess is
turned off, and a blank pipeline stands where the model would be fetched, whether or not one is installed: the same file
gives the same text on every machine.
"""

import os
import sys
from functools import cache
from typing import Any

ENVIRONMENT = {"SCARF_NO_ANALYTICS": "true", "DO_NOT_TRACK": "true", "UNSTRUCTURED_DISABLE_NOTICE": "1"}
# spaCy looks whether these are there and loads them: torch alone takes two seconds and 500 MB of address space.
_HEAVY = ("torch", "tensorflow", "mxnet", "cupy")


@cache
def prepare() -> None:
    """Patch `unstructured` in this process, once, before its first use."""
    os.environ.update(ENVIRONMENT)
    absent = [name for name in _HEAVY if name not in sys.modules]
    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None makes an import fail
    try:
        _patch()
    finally:
        for name in absent:
            del sys.modules[name]


def _patch() -> None:
    import spacy
    import unstructured.nlp.tokenize as tokenize
    import unstructured.partition.docx as docx
    import unstructured.partition.html.parser as html
    import unstructured.partition.pptx as pptx
    from unstructured.documents.elements import Text

    pipeline = spacy.blank("en")
    pipeline.add_pipe("sentencizer")
    _replace(tokenize, "_get_nlp", lambda: pipeline)
    # The classifier also drops paragraphs of one character and takes "-5" for a bullet.
    _replace(html, "derive_element_type_from_text", lambda text: Text)
    for module in (docx, pptx):
        _replace(module, "is_possible_narrative_text", lambda text: False)
    _replace(pptx, "is_possible_title", lambda text: False)


def _replace(module: Any, name: str, value: Any) -> None:
    """Set what is there; an AttributeError here means that a new version of `unstructured` moved it."""
    getattr(module, name)
    setattr(module, name, value)
