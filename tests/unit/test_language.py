"""Which language a text is told to be in, and when none is told."""

import pytest

from models.language import SAMPLE, language_of

# Article 1 of the Universal Declaration of Human Rights, in the United Nations' translations.
TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "ja": "すべての人間は、生れながらにして自由であり、かつ、尊厳と権利とについて平等である。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_prose_tells_its_language(language: str) -> None:
    assert language_of(TEXTS[language]) == language


@pytest.mark.parametrize("text", ["", "42 17 9 10", "ERR-4012", "a,b,c\n1,2,3\n", "lamp", "\ud800" * 3, "\0"])
def test_what_tells_too_little_is_in_none(text: str) -> None:
    assert language_of(text) is None


def test_a_cover_page_does_not_decide() -> None:
    assert language_of(TEXTS["en"] * 20 + TEXTS["de"] * (6 * SAMPLE // len(TEXTS["de"]))) == "de"
