"""Where a text holds personal data and secrets: recognisers that look for an anchor, then check what stands there.

A number is believed by its check digits, which python-stdnum and phonenumbers know. Every pattern has a bounded length,
and is tried only beside its anchor: the time is linear in the text.
"""

import base64
import binascii
import ipaddress
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache, partial

import phonenumbers
from stdnum import get_cc_module, iban, luhn

from core.sensitive import Kind


@dataclass(frozen=True, slots=True)
class Found:
    """Where something sensitive stands, half-open, in code points."""

    kind: Kind
    start: int
    end: int


Recogniser = Callable[[str], Iterator[tuple[int, int]]]

_DIGITS = re.compile(r"(?<![\w.,+/#-])\+?\(?\d[\d ().\-/]{5,36}\d(?![\w]|[.,-]\d)")  # runs that numbers stand in


# Runs of the characters that a pattern's matches are made of. A pattern that begins by looking back is tried at every
# character, a run is found ten times as fast.
_CARD_RUN = re.compile(r"\d[\d -]{12,}")
_PHONE_RUN = re.compile(r"\d[\d ().\-/]{5,}")
_IBAN_RUN = re.compile(r"[A-Z]{2}\d\d[A-Z0-9 ]{10,}")
_IPV4_RUN = re.compile(r"\d[\d.]{6,}")
_IPV6_RUN = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]+")
_ID_RUN = re.compile(r"[A-Z0-9][A-Z0-9 .+-]{8,}")
_BESIDE = 5  # characters before and behind a run that a pattern may look at or begin with


def recognise(text: str, kinds: Collection[Kind], region: str) -> list[Found]:
    """Everything of these kinds in the text, by place; what two recognisers see is told by both. `region` is where
    phone numbers without a country code are of."""
    recognisers: dict[Kind, Recogniser] = {**RECOGNISERS, "phone": partial(_phones, region=region)}
    found = [Found(kind, *span) for kind in kinds for span in recognisers[kind](text)]
    return sorted(found, key=lambda each: (each.start, each.end, each.kind))


# --- secrets ---------------------------------------------------------------------------------------------------------

_BEGIN = "-----BEGIN "
_KEY_BLOCK = re.compile(
    r"-----BEGIN (?P<what>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:(?:(?!-----)[\s\S]){0,20000}-----END (?P=what)-----|[A-Za-z0-9+/=\s\\]{0,20000})"
)
# Anchor → what follows it: formats that their services publish.
_KEYS = {
    **dict.fromkeys(("AKIA", "ASIA", "ABIA", "ACCA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    "AIza": r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])",
    "GOCSPX-": r"[A-Za-z0-9_-]{28}(?![A-Za-z0-9_-])",
    "ya29.": r"[A-Za-z0-9_-]{30,400}",
    **dict.fromkeys(("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"[A-Za-z0-9]{36,251}(?![A-Za-z0-9])"),
    "github_pat_": r"[A-Za-z0-9_]{82}(?![A-Za-z0-9_])",
    "glpat-": r"[A-Za-z0-9_-]{20,50}(?![A-Za-z0-9_-])",
    **dict.fromkeys(("xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"), r"[A-Za-z0-9-]{10,250}"),
    "hooks.slack.com/services/": r"T[A-Za-z0-9_]{6,14}/B[A-Za-z0-9_]{6,14}/[A-Za-z0-9_]{20,30}",
    **dict.fromkeys(("sk_live_", "rk_live_", "sk_test_", "rk_test_"), r"[A-Za-z0-9]{20,247}"),
    "SG.": r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    "npm_": r"[A-Za-z0-9]{36}(?![A-Za-z0-9])",
    "sk-ant-": r"[A-Za-z0-9_-]{40,200}",
    "AccountKey=": r"[A-Za-z0-9+/]{86}==",
}
_AFTER = {anchor: re.compile(pattern) for anchor, pattern in _KEYS.items()}
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,2000}")
# The name of a secret, and the value beside it. In quotes whatever stands there; else a word that no sentence has.
_NAME = re.compile(
    r"(?:pass(?:word|wd|phrase|code)|pwd|secret(?:[_-]?(?:access[_-]?)?key)?|api[_-]?key|access[_-]?key|"
    r"account[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret)[\"'*`]{0,3} ?$",
    re.IGNORECASE,
)
_NAME_CHARS = 28
_IS = re.compile(r"[=:]")
_VALUE = re.compile(
    r"(?:=>|:=|[=:])[*]{0,2} ?(?:[\"'`](?P<quoted>[^\"'`\s]{6,200})[\"'`]|(?P<bare>[^\s\"'`<>(),;]{6,200}))"
)
_IN_URL = re.compile(r"://[^\s:/@]{1,64}:(?P<value>[^\s:/@]{4,128})@")
_PLACEHOLDER = re.compile(
    r"(?:[*x.•_-]{3}|\$|%|<|\{|\[|\\|&|your|example|changeme|placeholder|redacted|optional|required|undefined|"
    r"string|none|null|true|false|https?:)",
    re.IGNORECASE,
)
# How variables and files are called: not the secret, but where it is.
_CALLED = re.compile(r"[A-Z]+(?:_[A-Z0-9]+)*$|[A-Za-z_]+(?:\.[A-Za-z_]+)+$|[.~]{0,2}/")
_WORD = re.compile(r"(?<![A-Za-z0-9+/=_.\-@:#%&?])[A-Za-z0-9+/_-]{24,128}={0,2}(?![A-Za-z0-9+/=_\-.@:%])")
# Base64 has 6 bits a character: a random word of 24 has 4.3 on average, and one of 40 has 4.9.
_RANDOM_BITS = 4.1


def _private_keys(text: str) -> Iterator[tuple[int, int]]:
    for place in _places(text, _BEGIN):
        if match := _KEY_BLOCK.match(text, place):
            yield match.span()


def _access_keys(text: str) -> Iterator[tuple[int, int]]:
    for anchor, pattern in _AFTER.items():
        for place in _places(text, anchor):
            match = pattern.match(text, place + len(anchor))
            if match and not _in_word(text, place):
                yield place, match.end()
    for place in _places(text, "eyJ"):
        match = _JWT.match(text, place)
        if match and not _in_word(text, place) and _is_jwt(match.group()):
            yield match.span()


def _is_jwt(word: str) -> bool:
    header = word.partition(".")[0]
    try:
        return "alg" in json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, TypeError):
        return False


def _passwords(text: str) -> Iterator[tuple[int, int]]:
    for sign in _IS.finditer(text):
        match = _VALUE.match(text, sign.start())
        if match is None or not _NAME.search(text[max(0, sign.start() - _NAME_CHARS) : sign.start()]):
            continue
        group = "quoted" if match["quoted"] else "bare"
        if _is_secret(match[group]) and (group == "quoted" or _kinds_of_character(match[group]) >= 2):
            yield match.span(group)
    for place in _places(text, "://"):
        url = _IN_URL.match(text, place)
        if url and _is_secret(url["value"]):
            yield url.span("value")


def _is_secret(value: str) -> bool:
    return not _PLACEHOLDER.match(value.lstrip("\"'`")) and not _CALLED.match(value)


def _kinds_of_character(word: str) -> int:
    """Of letters, digits and others; a full stop at the end belongs to the sentence."""
    word = word.rstrip(".")
    return sum((any(map(str.isalpha, word)), any(map(str.isdigit, word)), not word.isalnum()))


def _tokens(text: str) -> Iterator[tuple[int, int]]:
    for match in _WORD.finditer(text):
        # a word that fills a line is of a certificate's body, or of a picture's
        if _is_random(match.group()) and not (len(match.group()) >= 56 and _fills_line(text, *match.span())):
            yield match.span()


def _is_random(word: str) -> bool:
    """Of mixed shapes, that change as often as chance has them change; names have their number at their end."""
    mixed = any(map(str.isupper, word)) and any(map(str.islower, word)) and len(re.findall(r"[0-9]+", word)) >= 2
    return mixed and word.count("/") < 3 and _bits(word) >= _RANDOM_BITS and _turns(word) >= len(word) / 3


def _fills_line(text: str, start: int, end: int) -> bool:
    return not text[text.rfind("\n", 0, start) + 1 : start].strip() and text[end : end + 1] in ("\n", "")


def _bits(word: str) -> float:
    """Shannon entropy, in bits a character."""
    return -sum(n / len(word) * math.log2(n / len(word)) for n in Counter(word).values())


def _turns(word: str) -> int:
    """How often upper case, lower case and digits change: names of things written together change seldom."""
    shapes = ["d" if c.isdigit() else "u" if c.isupper() else "l" if c.islower() else "o" for c in word]
    return sum(one != other for one, other in zip(shapes, shapes[1:], strict=False))


# --- personal data ---------------------------------------------------------------------------------------------------

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-][A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{0,63}$")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{1,4}){3,8}(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,+/#-])\d(?:[ -]?\d){12,18}(?![\w]|[.,-]\d)")
_IPV4 = re.compile(r"(?<![\w.:-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4}(?![\w:])")
# Prefix and length: ISO/IEC 7812 ranges of the networks that issue cards.
_NETWORKS = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}|"
    r"3(?:0[0-5]|[689]\d)\d{11,16}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|62\d{14,17}|"
    r"(?:5018|5020|5038|6304|6759|676[1-3])\d{8,15}"
)


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for place in _places(text, "@"):
        local = _LOCAL.search(text[max(0, place - 64) : place])
        domain = _DOMAIN.match(text, place + 1)
        if local and domain:
            yield place - len(local.group()), domain.end()


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    """The longest beginning of each run of groups that is one: words in capitals may follow it."""
    for match in _within(_IBAN_RUN, _IBAN, text):
        for end in range(match.end(), match.start() + 14, -1):
            whole = end == match.end() or not text[end].isalnum()
            if whole and text[end - 1] != " " and iban.is_valid(text[match.start() : end], check_country=False):
                yield match.start(), end
                break


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _within(_CARD_RUN, _CARD, text):
        digits = re.sub(r"[ -]", "", match.group())
        apart = {len(part) for part in re.split(r"[ -]", match.group())}
        if _NETWORKS.fullmatch(digits) and luhn.is_valid(digits) and min(apart) > 1 and len(set(digits)) > 1:
            yield match.span()


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for run, pattern in ((_IPV4_RUN, _IPV4), (_IPV6_RUN, _IPV6)):
        for match in _within(run, pattern, text):
            if _is_address(match.group()) and not text[max(0, match.start() - 10) : match.start()].rstrip().endswith(
                ("ersion", "ection", "v", "§", "lease")
            ):
                yield match.span()


def _is_address(word: str) -> bool:
    try:
        address = ipaddress.ip_address(word)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return not (address.is_loopback or address.is_multicast or address.is_unspecified) and any(
            map(str.isdigit, word)
        )
    parts = [int(part) for part in word.split(".")]  # 1.2.3.4 is a section's number far more often
    return 0 < parts[0] < 224 and parts[0] != 127 and max(parts) > 9


def _phones(text: str, region: str) -> Iterator[tuple[int, int]]:
    for match in _within(_PHONE_RUN, _DIGITS, text):
        written = match.group()
        # without a + only in groups, as people write numbers that are to be dialled
        groups = re.findall(r"\d+", written)
        if written[0] != "+" and not (len(groups) >= 3 and max(map(len, groups)) <= 5):
            continue
        for number in phonenumbers.PhoneNumberMatcher(
            written, region, leniency=phonenumbers.Leniency.STRICT_GROUPING, max_tries=4
        ):
            yield match.start() + number.start, match.start() + number.end


# --- national ids ----------------------------------------------------------------------------------------------------

_EDGE, _END = r"(?<![\w.+/#-])", r"(?![\w]|[.,-]\d)"


@dataclass(frozen=True, slots=True)
class _Id:
    """How a country's number is written, and where python-stdnum checks it."""

    country: str
    module: str
    pattern: str
    beside: str = ""  # words of which one stands before it: without them it is any number of that length


_IDS = (
    _Id("us", "ssn", r"\d{3}-\d{2}-\d{4}"),  # no check digit, but ranges that are not given out
    _Id("gb", "nhs", r"\d{3}[ -]\d{3}[ -]\d{4}", "nhs|health service"),
    _Id("de", "idnr", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", "steuer|tax|idnr|tin"),
    _Id("fr", "nir", r"[12] ?\d\d ?[01]\d ?\d[\dAB] ?\d{3} ?\d{3} ?\d\d"),
    _Id("es", "dni", r"\d{8}-?[A-Z]"),
    _Id("es", "nie", r"[XYZ]-?\d{7}-?[A-Z]"),
    _Id("it", "codicefiscale", r"[A-Z]{6}\d\d[A-EHLMPR-T]\d\d[A-Z]\d{3}[A-Z]"),
    _Id("nl", "bsn", r"\d{9}", "bsn|burgerservice|sofi"),
    _Id("be", "nn", r"\d\d\.\d\d\.\d\d-\d{3}\.\d\d"),
    _Id("ch", "ssn", r"756\.\d{4}\.\d{4}\.\d\d"),
    _Id("pl", "pesel", r"\d{11}", "pesel"),
    _Id("se", "personnummer", r"(?:\d\d)?\d{6}[-+]\d{4}"),
    _Id("fi", "hetu", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]"),
    _Id("no", "fodselsnummer", r"\d{6} ?\d{5}", "fødselsnummer|fodselsnummer|personnummer"),
    _Id("br", "cpf", r"\d{3}\.\d{3}\.\d{3}-\d\d"),
    _Id("mx", "curp", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d"),
    _Id("cn", "ric", r"\d{17}[\dX]"),
    _Id("in_", "aadhaar", r"\d{4} \d{4} \d{4}"),
    _Id("kr", "rrn", r"\d{6}-\d{7}"),
    _Id("za", "idnr", r"\d{13}", "identity|id no|id number|rsa id"),
)
_BESIDE_CHARS = 40
_ANY_ID = re.compile(_EDGE + "(?:" + "|".join(f"(?P<n{n}>{each.pattern})" for n, each in enumerate(_IDS)) + ")" + _END)
_EACH_ID = [re.compile(_EDGE + each.pattern + _END) for each in _IDS]


def _national_ids(text: str) -> Iterator[tuple[int, int]]:
    for match in _within(_ID_RUN, _ANY_ID, text):
        for each, pattern in zip(_IDS, _EACH_ID, strict=True):  # two countries may write theirs alike
            own = pattern.match(text, match.start())
            if own and _checks(each)(own.group()) and _is_beside(each, text, own.start()):
                yield own.span()
                break


@cache
def _checks(each: _Id) -> Callable[[str], bool]:
    module = get_cc_module(each.country, each.module)
    assert module is not None
    return module.is_valid


def _is_beside(each: _Id, text: str, start: int) -> bool:
    before = text[max(0, start - _BESIDE_CHARS) : start]
    return not each.beside or re.search(each.beside, before, re.IGNORECASE) is not None


def _within(run: re.Pattern[str], pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """The pattern's matches in runs of the text; those of one run and the next do not overlap."""
    done = 0
    for found in run.finditer(text):
        for match in pattern.finditer(text, max(done, found.start() - _BESIDE), found.end() + _BESIDE):
            done = match.end()
            yield match


def _places(text: str, anchor: str) -> Iterator[int]:
    place = text.find(anchor)
    while place >= 0:
        yield place
        place = text.find(anchor, place + len(anchor))


def _in_word(text: str, place: int) -> bool:
    return place > 0 and (text[place - 1].isalnum() or text[place - 1] == "_")


RECOGNISERS: dict[Kind, Recogniser] = {
    "private_key": _private_keys,
    "access_key": _access_keys,
    "password": _passwords,
    "iban": _ibans,
    "card": _cards,
    "national_id": _national_ids,
    "email": _emails,
    "ip_address": _addresses,
    "token": _tokens,
}
