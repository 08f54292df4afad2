"""What is taken out of a person's words before they are kept: addresses, numbers that name somebody, secrets.

It is a net with known holes: names of people pass, and so does what no pattern knows. Patterns err towards taking out,
for nobody misses a word of a kept question; those of `ingest/recognise.py` err towards leaving a document's text alone.
"""

import re
from collections.abc import Callable

from stdnum import luhn
from stdnum.iso7064 import mod_97_10

SECRET, EMAIL, CARD, ACCOUNT, PHONE = "[secret]", "[email]", "[card]", "[account]", "[phone]"

PEM = re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL)
# What follows a word that announces a secret; the word stays.
ANNOUNCED = re.compile(
    r"(?i)\b(pass(?:word|wd|phrase|code)?|secret|token|api[ _-]?key|access[ _-]?key|bearer|pin)\b"
    r"(\s*[:=]\s*|(?<=bearer)\s+|\s+is\s+(?=\S*[\d!$%&*#@]))[\"']?([^\s\"',;]+)"
)
# Of known makes (ours is ck_), JSON web tokens, credentials in a URL, and long runs that mix letters and digits.
KNOWN = re.compile(
    r"\b(?:ck_|sk-|sk_|pk_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|hf_)[A-Za-z0-9_-]{8,}"
    r"|\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"
    r"|(?<=://)[^\s/:@]+:[^\s/@]+(?=@)"
)
RUN = re.compile(r"(?<![\w/+=-])(?=[A-Za-z0-9/+_-]*\d)(?=[A-Za-z0-9/+_-]*[A-Za-z])[A-Za-z0-9/+_-]{28,}=*")
UUID = re.compile(r"(?i)[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
ADDRESS = re.compile(r"[^\s@<>()\[\],;:\"']{1,64}@[^\s@<>()\[\],;:\"']{1,253}\.[^\W\d_]{2,}")  # RFC 5321's lengths
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
DIGITS = re.compile(r"(?<![\w.])(?:\d[ -]?){12,18}\d(?![\w])")
# With a plus, with a code in brackets, or at least nine digits in groups: years, amounts and section numbers stay.
CALLED = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .\-/]?(?:\(?\d{1,4}\)?[ .\-/]?){2,5}\d{2,4}"
    r"|\(\d{2,5}\)[ .\-/]?\d{2,4}(?:[ .\-/]?\d{2,4}){1,3}"
    r"|\d{2,4}([ \-/.])\d{2,4}(?:\1\d{2,4}){1,3}|\d{9,15})(?!\w)"
)


def redacted(text: str) -> str:
    """The text with marks such as `[email]` in the place of what may name or open something."""
    text = PEM.sub(SECRET, text)
    text = ANNOUNCED.sub(lambda found: f"{found[1]}{found[2]}{SECRET}", text)
    text = KNOWN.sub(SECRET, text)
    text = ADDRESS.sub(EMAIL, text)
    text = RUN.sub(lambda found: found[0] if UUID.fullmatch(found[0]) else SECRET, text)
    text = IBAN.sub(_if(_is_iban, ACCOUNT), text)
    text = DIGITS.sub(_if(_is_card, CARD), text)
    return CALLED.sub(_if(_is_number, PHONE), text)


def _if(holds: Callable[[str], bool], mark: str) -> Callable[[re.Match[str]], str]:
    return lambda found: mark if holds(found[0]) else found[0]


def _is_card(text: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1), in whichever digits it is written."""
    return bool(luhn.is_valid("".join(str(int(c)) for c in text if c.isdecimal())))


def _is_iban(text: str) -> bool:
    """The remainder by 97 (ISO 13616)."""
    plain = text.replace(" ", "")
    return bool(mod_97_10.is_valid(plain[4:] + plain[:4]))


def _is_number(text: str) -> bool:
    """Neither dates nor years, and of as many digits as a telephone number has (ITU-T E.164: up to 15)."""
    if re.fullmatch(r"(?:(?:19|20)\d\d\D?)+", text):
        return False
    return 9 <= sum(c.isdigit() for c in text) <= 15
