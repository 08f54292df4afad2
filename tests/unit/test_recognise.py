"""What is recognised, by numbers and tokens that others published, and what is left alone."""

import random
import string
import time

import pytest
from stdnum import get_cc_module, iban, luhn
from stdnum.exceptions import ValidationError

from core.sensitive import KINDS, Kind
from ingest.recognise import _IDS, recognise

# Test numbers as the networks and Stripe publish them: docs.stripe.com/testing.
CARDS = """4242424242424242 4000056655665556 5555555555554444 2223003122003222 5200828282828210 5105105105105100
378282246310005 371449635398431 6011111111111117 6011000990139424 3056930009020004 36227206271667 3566002020360505
6200000000000005 4111111111111111 4012888888881881"""
# The registry of ISO 13616 has an example for each country.
IBANS = """AD1200012030200359100100 AE070331234567890123456 AT611904300234573201 BE68539007547034 CH9300762011623852957
CZ6508000000192000145399 DE89370400440532013000 DK5000400440116243 ES9121000418450200051332 FI2112345600000785
FR1420041010050500013M02606 GB29NWBK60161331926819 GR1601101250000000012300695 IE29AIBK93115212345678
IT60X0542811101000000123456 LU280019400644750000 MT84MALT011000012345MTLCAST001S NL91ABNA0417164300 NO9386011117947
PL61109010140000071219812874 PT50000201231234567890154 SE4550000000058398257466 TR330006100519786457841326"""
KEYS = (
    "AKIAIOSFODNN7EXAMPLE",  # the AWS documentation's
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ"
    ".SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",  # jwt.io's
    "ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a",  # GitHub's, "Authenticating with the API"
    "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",  # Google's, of the Maps documentation
    "xoxb-" + "17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy",  # Slack's, "Token types"
    "sk_test_" + "4eC39HqLyjWDarjtT1zdp7dc",  # Stripe's, of its API reference
)


def found(text: str, kind: Kind, region: str = "US") -> list[str]:
    return [text[each.start : each.end] for each in recognise(text, [kind], region)]


@pytest.mark.parametrize("apart", ["", " ", "-"])
def test_card_numbers_as_published(apart: str) -> None:
    for card in CARDS.split():
        written = apart.join((card[:4], card[4:8], card[8:12], card[12:])) if len(card) == 16 else card
        assert found(f"paid with {written}, thanks.", "card") == [written]


def test_a_wrong_check_digit_is_no_card_and_no_iban() -> None:
    for card in CARDS.split():
        other = card[:-1] + str((int(card[-1]) + 1) % 10)
        assert not luhn.is_valid(other)
        assert found(f"order {other} is late", "card") == []
    for number in IBANS.split():
        other = number[:2] + f"{(int(number[2:4]) + 1) % 97:02}" + number[4:]
        with pytest.raises(ValidationError):
            iban.validate(other, check_country=False)
        assert found(f"order {other} is late", "iban") == []


def test_ibans_of_the_registry_in_both_of_its_forms() -> None:
    for number in IBANS.split():
        for written in (number, iban.format(number)):
            assert found(f"IBAN {written} BIC ABNANL2A", "iban") == [written]
            assert found(f"to {written}.", "iban") == [written]


def test_national_ids_are_believed_by_the_library_alone() -> None:
    documented = {
        "us ssn": "536-90-4399", "es dni": "54362315-K", "es nie": "X-2482300W", "ch ssn": "756.9217.0769.85",
        "it codicefiscale": "RCCMNL83S18D969H", "fi hetu": "131052-308T", "br cpf": "390.533.447-05",
        "mx curp": "BOXW310820HNERXN09", "cn ric": "360426199101010071", "kr rrn": "971013-9019902",
        "fr nir": "2 95 10 99 126 111 93", "pl pesel": "44051401359", "de idnr": "36 574 261 809",
        "nl bsn": "111222333", "gb nhs": "943-476-5870", "in_ aadhaar": "2341 2341 2346", "za idnr": "7503305044089",
        "be nn": "85.07.30-033.28", "no fodselsnummer": "684131 05476", "se personnummer": "880320-0016",
    }  # fmt: skip
    for each in _IDS:
        number, word = documented[f"{each.country} {each.module}"], each.beside.split("|")[0]
        module = get_cc_module(each.country, each.module)
        assert found(f"{word} {number}, born", "national_id") == ([number] if module.is_valid(number) else []), each
        if each.beside:
            assert found(f"invoice {number}, paid", "national_id") == []


@pytest.mark.parametrize("key", KEYS)
def test_keys_as_their_services_publish_them(key: str) -> None:
    assert found(f"export KEY={key}\n", "access_key") == [key]
    assert found(f"x{key}", "access_key") == []


def test_a_private_key_goes_with_its_whole_block() -> None:
    block = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\nAAAABG5vbmU=\n-----END OPENSSH PRIVATE KEY-----"
    assert found(f"keep this:\n{block}\nand go on", "private_key") == [block]
    assert found("-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\nAAKC", "private_key") == [
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\nAAKC"
    ]
    assert found("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", "private_key") == []


def test_the_value_beside_a_name_is_a_password_where_it_can_be_one() -> None:
    for text, value in {
        "password: hunter2!": "hunter2!", 'api_key = "abcdefgh"': "abcdefgh", "PASSWORD=s3cr3t-word\n": "s3cr3t-word",
        "postgres://citadel:tr0ub4dor@db/x": "tr0ub4dor",
    }.items():  # fmt: skip
        assert found(text, "password") == [value]
    for text in ("Password: required", "password=${DB_PASSWORD}", "password: <yours>", "the password is known",
                 "api_key: string", "password=your-password-1",
                 "--secret=TFC_TEAM_TOKEN", "secret := secrets.Namespace", "secret_key=/run/secrets/db1",
                 "https://example.org:8443/a@b"):  # fmt: skip
        assert found(text, "password") == []


def test_addresses_and_numbers_of_people() -> None:
    assert found("write to o'neil+list@mail.acme.example.", "email") == ["o'neil+list@mail.acme.example"]
    assert found("@ana said; a@b; python@3.11", "email") == []
    assert found("from 192.0.2.17 to 2001:db8:0:1:1:1:1:1", "ip_address") == ["192.0.2.17", "2001:db8:0:1:1:1:1:1"]
    for text in ("section 1.2.3.4", "version 10.15.7.1", "127.0.0.1", "255.255.255.0", "12:30:45", "std::a::b"):
        assert found(text, "ip_address") == []
    # https://www.itu.int E.164 form, and the region's own
    assert found("call +44 20 7946 0958 or (212) 736-5000", "phone") == ["+44 20 7946 0958", "(212) 736-5000"]
    assert found("Tel. 030 901820", "phone", "DE") == []  # two groups: as often a number of something else
    assert found("2019-2020 10-12-2024 1.000.000 §12.4.5", "phone") == []


def test_random_words_are_tokens_and_names_are_not() -> None:
    letters = string.ascii_letters + string.digits
    chance = random.Random(3)
    drawn = ["".join(chance.choices(letters, k=40)) for _ in range(200)]
    assert sum(found(f"x {word} y", "token") == [word] for word in drawn) >= 195
    for name in ("ConfigurationManagerFactoryBean2", "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                 "https://acme.example/a/b/AbCdEfGhIjKlMnOpQrStUvWx1", "SomeVeryLongTestNameThatGoesOn12"):  # fmt: skip
        assert found(f"x {name} y", "token") == []


def test_no_recogniser_is_slow_on_a_text_made_against_it() -> None:
    """A bound on processor time that a linear search stays a hundred times below, and a quadratic one does not."""
    for piece in ("a", "1 ", "@", "1.", "AAAA ", "-----BEGIN ", "password=", "1-", "a@a.", ":", "eyJ", "://a:"):
        text = piece * (40_000 // len(piece))
        started = time.process_time()
        recognise(text, KINDS, "US")
        assert time.process_time() - started < 3, piece
