"""Signatures estimate the resemblance of texts, as the Jaccard coefficient counts it."""

import hashlib
import random

from ingest.fingerprint import BANDS, LEAST_SHINGLES, PLACES, SHINGLE, fingerprint
from store.copies import resemblance

WORDS = [f"w{n}" for n in range(5000)]


def text(chance: random.Random, words: int) -> list[str]:
    return chance.choices(WORDS, k=words)


def jaccard(one: list[str], other: list[str]) -> float:
    a, b = ({tuple(words[n : n + SHINGLE]) for n in range(len(words) - SHINGLE + 1)} for words in (one, other))
    return len(a & b) / len(a | b)


def changed(chance: random.Random, words: list[str], share: float) -> list[str]:
    return [chance.choice(WORDS) if chance.random() < share else word for word in words]


def test_the_estimate_is_within_what_128_places_allow() -> None:
    chance, errors = random.Random(7), []
    for share in (0, 0.01, 0.03, 0.1, 0.3, 1):
        for _ in range(10):
            one = text(chance, chance.randint(100, 800))
            other = changed(chance, one, share)
            signatures = [fingerprint(" ".join(words)).signature for words in (one, other)]
            assert signatures[0] is not None and signatures[1] is not None
            estimate, true = resemblance(signatures[0], signatures[1]), jaccard(one, other)
            error = (true * (1 - true) / PLACES) ** 0.5  # of the mean of so many draws that are 1 as often
            assert abs(estimate - true) <= 4.5 * error + 1e-9
            errors.append(estimate - true)
    assert abs(sum(errors) / len(errors)) < 0.02  # on neither side


def test_near_copies_share_a_band_and_strangers_none() -> None:
    chance = random.Random(8)
    met = strangers = 0
    for _ in range(60):
        one = text(chance, 600)
        other = changed(chance, one, 0.008)  # 5 shingles for each word: 0.92 alike
        a, b, c = (set(fingerprint(" ".join(words)).bands) for words in (one, other, text(chance, 600)))
        assert len(a) == BANDS
        met += bool(a & b)
        strangers += bool(a & c)
    assert met >= 59 and strangers == 0


def test_order_case_and_punctuation() -> None:
    words = text(random.Random(9), 200)
    plain = fingerprint(" ".join(words))
    assert fingerprint(", ".join(words).upper()).bands == plain.bands
    assert not set(fingerprint(" ".join(sorted(words))).bands) & set(plain.bands)
    assert plain.text_hash == hashlib.sha256(" ".join(words).encode()).digest()


def test_a_short_text_is_compared_by_its_hash_alone() -> None:
    short = " ".join(WORDS[: LEAST_SHINGLES + SHINGLE - 2])
    assert fingerprint(short).signature is None and fingerprint(short).bands == ()
    assert fingerprint(short + " more").signature is not None
