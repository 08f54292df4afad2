"""Which language a text is in, by naive Bayes over bytes (Lui and Baldwin, langid.py, ACL 2012; here py3langid).

The model comes with its wheel (4.5 MB, BSD-3-Clause), is loaded in a second at the first text, and takes some 100 MB of
a worker's memory. 4,000 characters take half a millisecond.
"""

from functools import cache
from typing import Any

SAMPLE = 2000  # characters, of a text's beginning, its middle and its end: a cover page may be in another language
CERTAIN = 0.5  # of 600 English pages 590 pass it; figures, codes and source code have less than 0.4

NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content


def language_of(text: str) -> str | None:
    """The ISO 639 code of most of the text, such as `en` or `de`; None where it tells too little."""
    middle = len(text) // 2
    parts = [text] if len(text) <= 3 * SAMPLE else [text[:SAMPLE], text[middle : middle + SAMPLE], text[-SAMPLE:]]
    found, confidence = _identifier().classify("\n".join(parts))
    return str(found) if confidence >= CERTAIN and found != NO_LANGUAGE else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
