"""What of a sentence can be looked up word for word: its quotations, numbers and dates. Nothing here is a model.

A numeral is read in every way that its separators allow ("1,234" is 1234, and 1.234 where the comma is a decimal one);
two numerals are equal when they have a reading in common, of the same quantity: percent is not a plain number, "9
million" is 9,000,000, and units that are both known must agree. A rounded number is another number. Spelt numbers
("nine weeks") count in a source, and in a claim only before a scale or a unit, because "one" is also a pronoun.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from decimal import Decimal

_STRAIGHT = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u2032", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"')
    | dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-")
    | {"\u00ad": None}
)
_QUOTED = re.compile(
    "\u201c([^\u201c\u201d]+)\u201d|\u201e([^\u201e\u201c\u201d]+)[\u201c\u201d]|\u00ab([^\u00ab\u00bb]+)\u00bb|\u00bb([^\u00ab\u00bb]+)\u00ab"
    '|\u300c([^\u300c\u300d]+)\u300d|"([^"]+)"|(?<!\\w)\u2018([^\u2018]+?)\u2019(?!\\w)'
)
_LEFT_OUT = re.compile(
    r"\s*(?:\[?(?:\.\.\.)\]?|\[[^\]]*\])\s*"
)  # an ellipsis or an insertion: what is around it counts

SCALES = {
    "hundred": 100, "thousand": 1000, "k": 1000, "tsd": 1000, "tausend": 1000, "million": 10**6, "millions": 10**6,
    "mn": 10**6, "mio": 10**6, "m": 10**6, "millionen": 10**6, "billion": 10**9, "billions": 10**9, "bn": 10**9,
    "mrd": 10**9, "milliarden": 10**9, "trillion": 10**12, "tn": 10**12,
}  # fmt: skip
_EITHER = "m"  # millions, or metres
_UNITS = """
    % percent pct prozent percentage | bp bps | $ usd dollar dollars | \u20ac eur euro euros | \u00a3 gbp pound pounds
    \u00a5 jpy yen | chf | year years yr yrs jahr jahre jahren | month months monat monate monaten
    week weeks wk wks woche wochen | day days tag tage tagen | hour hours h hr hrs stunde stunden
    minute minutes min mins minuten | second seconds s sec secs sekunden | ms millisecond milliseconds
    km kilometre kilometres kilometer kilometers | metre metres meter meters | mile miles | foot feet ft | inch inches
    cm centimetre centimetres centimeter centimeters | mm millimetre millimetres millimeter millimeters
    kg kilogram kilograms kilogramm | g gram grams gramm | mg milligram milligrams | tonne tonnes
    litre litres liter liters l | ml millilitre millilitres milliliter milliliters | kb kilobyte kilobytes
    mb megabyte megabytes | gb gigabyte gigabytes | tb terabyte terabytes | w watt watts | kw kilowatt kilowatts
    kwh | mwh | hz hertz | \u00b0c | \u00b0f
"""
UNITS = {word: words.split()[0] for words in re.split(r"[|\n]", _UNITS) for word in words.split()}
PERCENT, CLOCK = "%", "o'clock"  # a plain number says neither

_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_SMALL = {word: n for n, word in enumerate(_ONES)}
_ROUND = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = {word: 10 * n for n, word in enumerate(_ROUND, start=2)}
_SPELT = "|".join([*_TENS, *sorted(_SMALL, key=len, reverse=True)])
_MONTH_NAMES = """
    january jan januar | february feb februar | march mar m\u00e4rz | april apr | may mai | june jun juni
    july jul juli | august aug | september sep sept | october oct oktober okt | november nov | december dec dezember dez
"""
_MONTHS = {
    name: n for n, names in enumerate(re.split(r"[|\n]", _MONTH_NAMES.strip()), start=1) for name in names.split()
}
_MONTH = "(?:" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\b\.?"
_YEAR = r"(?:1[5-9]|20|21)\d\d"
_DATES = (
    re.compile(rf"(?<![\w.])(?P<y>{_YEAR})-(?P<m>\d\d)-(?P<d>\d\d)(?![\w-])"),
    re.compile(
        rf"(?<![\w.])(?P<d>\d{{1,2}})(?:st|nd|rd|th|\.)?\s+(?:of\s+)?(?P<M>{_MONTH})(?:,?\s+(?P<y>{_YEAR})(?!\w))?"
    ),
    re.compile(rf"\b(?P<M>{_MONTH})\s+(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?![\w.,]?\d)(?:,?\s+(?P<y>{_YEAR})(?!\w))?"),
    re.compile(rf"\b(?P<M>{_MONTH}),?\s+(?P<y>{_YEAR})(?!\w)"),
    re.compile(rf"(?<![\w./])(?P<a>\d{{1,2}})(?P<s>[./])(?P<b>\d{{1,2}})(?P=s)(?P<y>{_YEAR})(?!\w)"),
)
_TIME = re.compile(r"(?<![\w:.])(\d{1,2}):(\d\d)(?::\d\d)?(?![\w:])\s?(am|pm|a\.m\.|p\.m\.)?")
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<money>[$\u20ac\u00a3\u00a5])?\s?"
    r"(?P<n>\d{1,3}(?:[ \u00a0\u2009\u202f']\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)*)"
    r"(?:\s?(?P<unit>%|\u00b0[cf]|[$\u20ac\u00a3\u00a5]|-?[a-z]+))?(?:\s(?P<after>[a-z]+|[$\u20ac\u00a3\u00a5]))?"
)
_TABLED = re.compile(r"\bin (thousand|million|billion)s\b")  # over a table, whose figures then go without
_WORDED = re.compile(
    rf"\b(?P<n>{_SPELT})(?:[- ](?P<ones>{'|'.join(_SMALL)}))?\b(?:\s(?P<unit>[a-z]+))?(?:\s(?P<after>[a-z]+))?"
)


@dataclass(frozen=True, slots=True)
class Number:
    """A numeral in every way that it can be read."""

    told: str  # as it stands in the text
    values: frozenset[Decimal]
    unit: str | None = None  # one of UNITS' values; None: none that is known
    scaled: bool = False  # by a word such as million

    def is_told_by(self, other: "Number") -> bool:
        """Whether the other says the same: of the same unit, or of one that is not known."""
        units = {self.unit, other.unit}
        agree = len(units) == 1 or (None in units and units.isdisjoint((PERCENT, CLOCK)))
        return agree and not self.values.isdisjoint(other.values)


@dataclass(frozen=True, slots=True)
class Date:
    """A date in every way that it can be read, as (year, month, day); None where it says nothing of one."""

    told: str
    readings: frozenset[tuple[int | None, int | None, int | None]]

    def is_told_by(self, other: "Date") -> bool:
        """Whether the other says as much, and may be more: "2 May 2025" tells "May 2025"."""
        return any(
            all(a is None or a == b for a, b in zip(mine, theirs, strict=True))
            for mine in self.readings for theirs in other.readings
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Facts:
    """What a text says that can be looked up."""

    quotes: tuple[str, ...] = ()
    numbers: tuple[Number, ...] = ()
    dates: tuple[Date, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.quotes or self.numbers or self.dates)


def facts_of(claim: str) -> Facts:
    """What a claim says; what is within its quotations is not looked up a second time."""
    quotes = tuple(next(part for part in found if part).strip() for found in _QUOTED.findall(claim))
    dates, numbers = _read(_QUOTED.sub(" ", claim), spelt=False)
    return Facts(quotes, numbers, dates)


def missing(facts: Facts, source: str) -> tuple[str, ...]:
    """Those of the facts that the source does not say, as they stand in the claim."""
    text = folded(source)
    dates, numbers = _read(source, spelt=True)
    for scale in {SCALES[found] for found in _TABLED.findall(text)}:
        numbers += tuple(replace(n, values=frozenset(scale * v for v in n.values)) for n in numbers if not n.scaled)
    years = tuple(Number("", frozenset({Decimal(y)})) for date in dates for y, _, _ in date.readings if y)
    lost = [quote for quote in facts.quotes if not _says(text, quote)]
    lost += [each.told for each in facts.dates if not any(map(each.is_told_by, dates))]
    lost += [each.told for each in facts.numbers if not any(map(each.is_told_by, (*numbers, *years)))]
    return tuple(lost)


def folded(text: str) -> str:
    """The text without what differs between two ways to write the same: case, spaces, quotes, dashes, ellipses."""
    plain = unicodedata.normalize("NFKC", text.translate(_STRAIGHT)).translate(_STRAIGHT)
    return " ".join(plain.casefold().split())


def _says(source: str, quote: str) -> bool:
    """Whether the quotation's parts stand in the folded source, in their order."""
    at = 0
    for part in _LEFT_OUT.split(folded(quote)):
        wanted = part.strip(" .,;:!?\"'")
        found = source.find(wanted, at)
        if found < 0:
            return False
        at = found + len(wanted)
    return True


# --- numbers and dates ----------------------------------------------------------------------------------------------


def _read(text: str, *, spelt: bool) -> tuple[tuple[Date, ...], tuple[Number, ...]]:
    """Dates, and the numbers outside them. `spelt`: "nine" alone counts, else only before a scale or unit."""
    plain = folded(text)
    dates: list[Date] = []
    numbers: list[Number] = []
    for pattern in _DATES:
        dates += [date for match in pattern.finditer(plain) if (date := _date(match)) is not None]
        plain = pattern.sub(lambda match: match[0] if _date(match) is None else " ; ", plain)
    numbers += [_time(match) for match in _TIME.finditer(plain)]
    plain = _TIME.sub(" ; ", plain)
    numbers += [number for match in _NUMBER.finditer(plain) if (number := _number(match)) is not None]
    numbers += [number for match in _WORDED.finditer(plain) if (number := _worded(match, spelt)) is not None]
    return tuple(dates), tuple(numbers)


def _date(match: re.Match[str]) -> Date | None:
    found = match.groupdict()
    year = int(found["y"]) if found["y"] else None
    if "a" in found:  # 1.2.2025 is February's in one country and January's in another; with dots, only the first
        a, b = int(found["a"]), int(found["b"])
        days = {(b, a), (a, b)} if found["s"] == "/" else {(b, a)}
    else:
        month = _MONTHS[found["M"].rstrip(".")] if "M" in found else int(found["m"])
        days = {(month, int(found["d"]) if found.get("d") else 0)}
    readings = frozenset((year, m, d or None) for m, d in days if 1 <= m <= 12 and d <= 31)
    return Date(match[0].strip(), readings) if readings else None


def _time(match: re.Match[str]) -> Number:
    hours, half = int(match[1]), (match[3] or "")[:1]
    hours = hours % 12 + (12 if half == "p" else 0) if half else hours
    return Number(match[0].strip(), frozenset({Decimal(60 * hours + int(match[2]))}), CLOCK)


def _number(match: re.Match[str]) -> Number | None:
    values = readings(match["n"])
    told = match[0][: match.end("unit" if match["unit"] else "n") - match.start()].strip()
    scale, unit = _scale_and_unit(match["unit"], match["after"])
    glued = match["unit"] and match.start("unit") == match.end("n")
    if glued and len(match["unit"].lstrip("-")) < 3 and scale == 1 and unit is None:
        return None  # "3d", "2nd", "10-Q": a name, not a quantity
    scaled = {scale * value for value in values}  # whatever the sign: a loss of 3 is told as -3, as (3), or as a loss
    either = match["unit"] == _EITHER and not match["money"]
    return Number(told, frozenset(scaled | (values if either else set())), match["money"] or unit, scale > 1)


def _worded(match: re.Match[str], spelt: bool) -> Number | None:
    word, ones = match["n"], match["ones"]
    value = _TENS.get(word, _SMALL.get(word, 0)) + (_SMALL[ones] if ones and word in _TENS else 0)
    scale, unit = _scale_and_unit(match["unit"], match["after"])
    if not spelt and scale == 1 and unit is None:
        return None
    return Number(match[0].strip(), frozenset({Decimal(value * scale)}), unit, scale > 1)


def _scale_and_unit(first: str | None, second: str | None) -> tuple[int, str | None]:
    """Of the words behind a numeral: "million dollars", "weeks", "m"."""
    word, then = (first or "").lstrip("-"), (second or "").lstrip("-")
    if word in SCALES:
        return SCALES[word], UNITS.get(then)
    if word == "per" and then in ("cent", "centum"):
        return 1, PERCENT
    return 1, UNITS.get(word)


def readings(numeral: str) -> frozenset[Decimal]:
    """What a numeral with its separators may stand for: "1.234,5" is 1234.5, "1,234" is 1234 or 1.234."""
    digits = re.sub(r"[ \u00a0\u2009\u202f']", "", numeral)
    marks = [c for c in digits if c in ".,"]
    if not marks:
        return frozenset({Decimal(digits)})
    if len(set(marks)) == 2:  # the last one is the decimal mark
        whole, _, part = digits.rpartition(marks[-1])
        return frozenset({Decimal(re.sub("[.,]", "", whole) + "." + part)})
    groups = digits.split(marks[0])
    thousands = len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:])
    found = {Decimal("".join(groups))} if thousands else set()
    if len(groups) == 2:
        found.add(Decimal(".".join(groups)))
    return frozenset(found or {Decimal("".join(groups))})
