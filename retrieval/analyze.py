"""Text to index terms: stems of lower-cased words; identifiers such as `ERR-4012` or `10-K` count whole and in parts.

A text is stemmed as the language that its function words tell; where they tell none, as a table or a list of parts, as
its document's, and else as English. A question that tells none is stemmed as each of the languages, for it may be about
texts of any. Measured in decision 0015.
"""

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import cache

import Stemmer

PREFIX_WEIGHT = 2  # how often a word of the title or a heading counts; 3 gains as much on one set and loses on another
MAX_QUERY_WORDS = 64  # of one question, the first of them; a page of text is not a question
DEFAULT = "english"
LEAST_EVIDENCE = 2  # function words,
LEAST_SHARE = 0.05  # and of a text's words: code and tables hold some by chance, prose 0.2 and more

# Words that make up much of any text in one language, and are no words of the others.
FUNCTION_WORDS = {
    "english": "the of and to is that for with are this by from was be what how which does has have",
    "german": "der und ist nicht ein eine dem den mit für auf sich von zu wie werden wird wer oder bei",
    "french": "les est une dans pour qui sur du pas avec quel quelle sont et aux ces leur nous vous être",
    "spanish": "el los las una por cómo cuál qué son y está más cuando pero muy sus este desde hay entre",
    "italian": "il di che è sono della gli nel alla quale dei più degli nella delle anche questo dal una come",
    "portuguese": "uma não dos das qual são ao pela pelo mais também foi às aos quais seu sua isso ou está",
    "dutch": "het een van dat niet op voor zijn aan wordt deze door bij ook maar heeft worden naar",
    "swedish": "och att det som är för av den till inte ett hur vad från eller vid ska efter",
    "russian": "и в не на что с по как это для из от к за о у же бы или при",
}
LANGUAGES = tuple(FUNCTION_WORDS)
BY_CODE = dict(zip(("en", "de", "fr", "es", "it", "pt", "nl", "sv", "ru"), LANGUAGES, strict=True))  # ISO 639

_WORD = re.compile(r"[^\W_]+(?:[-./_'’][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")
_own = threading.local()  # a stemmer may not be shared between threads


def terms(text: str) -> list[str]:
    """The words of a text as they are, in order, with repeats."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        parts = _PART.findall(word)
        found.extend([word, *parts] if len(parts) > 1 else parts)
    return found


def index_terms(prefix: str, text: str, language: str | None = None) -> list[str]:
    """What a chunk of a document in `language` (ISO 639) is found by; a word of its prefix, the title and headings,
    counts PREFIX_WEIGHT times."""
    words, names = terms(text), terms(prefix)
    language = language_of(words) or BY_CODE.get(language or "", DEFAULT)
    return stems(words, language) + stems(names, language) * PREFIX_WEIGHT


def query_terms(query: str) -> dict[str, int]:
    """The terms that a question asks for, and how often, in an order that depends on the question alone."""
    words = terms(query)
    kept = dict.fromkeys(words)
    words = [word for word in words if word in set(list(kept)[:MAX_QUERY_WORDS])]
    language = language_of(words)
    asked = LANGUAGES if language is None else dict.fromkeys((language, DEFAULT))
    variants = {stem: None for each in asked for stem in stems(words, each)}
    counts = Counter(stems(words, language or DEFAULT))
    return {stem: counts.get(stem, 1) for stem in variants}


def language_of(words: Sequence[str]) -> str | None:
    """The language of the most function words; None when there are too few of them, or as many of another."""
    hits = Counter(language for word in words for language in _telling().get(word, ()))
    (first, most), (_, next_most), *_ = [*hits.most_common(2), ("", 0), ("", 0)]
    told = most >= max(LEAST_EVIDENCE, LEAST_SHARE * len(words)) and most > next_most
    return first if told else None


def stems(words: Sequence[str], language: str) -> list[str]:
    """The words' stems by Snowball; what is not all letters stays as it is."""
    stemmed: list[str] = _stemmer(language).stemWords(words)
    return [stem if word.isalpha() else word for word, stem in zip(words, stemmed, strict=True)]


def analysis() -> str:
    """Names this analysis: an index made by another cannot be asked by this one."""
    return f"2/{PREFIX_WEIGHT}/{Stemmer.version()}"


def _stemmer(language: str) -> "Stemmer.Stemmer":
    if language not in _own.__dict__:
        _own.__dict__[language] = Stemmer.Stemmer(language)
    return _own.__dict__[language]


@cache
def _telling() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for language, words in FUNCTION_WORDS.items():
        for word in words.split():
            found[word] = (*found.get(word, ()), language)
    return found
