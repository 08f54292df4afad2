"""What is taken out of a question before it is kept, and what stays. The numbers are published examples."""

import time

import pytest

from retrieval.redact import redacted

TAKEN = {
    "mail ana@acme.example about it": "mail [email] about it",
    "is 4111 1111 1111 1111 ours?": "is [card] ours?",  # the networks' test numbers
    "is 378282246310005 ours?": "is [card] ours?",
    "pay to DE89 3704 0044 0532 0130 00 now": "pay to [account] now",  # ISO 13616's registry
    "call +49 30 901820 or (030) 901 820 11": "call [phone] or [phone]",
    "call 0170 123 4567": "call [phone]",
    "password: hunter2, token=abc": "password: [secret], token=[secret]",
    "my password is s3cret! why": "my password is [secret] why",
    "key AKIAIOSFODNN7EXAMPLE": "key [secret]",  # Amazon's documentation
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "[secret]",
    "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln": "Bearer [secret]",
    "ck_0123456789abcdef": "[secret]",
    "https://ana:pw@host/x": "https://[secret]@host/x",
    "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY----- x": "[secret] x",
}
STAYS = (
    "What is our password policy?",
    "the token is expired",
    "Which filings of 2023 2024 2025 name 12.500.000 EUR?",
    "What changed on 2026-01-05 in section 4.2.1 of ISO 27001?",
    "Who owns 6f1c1f0e-8f3b-4f0a-9d5e-0c4a3f6f7b1d?",
    "revenue of 1,234,567,890 dollars",
    "Wie hoch ist die Miete im Jahr 2025?",
)


@pytest.mark.parametrize("text", TAKEN)
def test_what_names_or_opens_is_taken_out(text: str) -> None:
    assert redacted(text) == TAKEN[text]


@pytest.mark.parametrize("text", STAYS)
def test_what_a_question_is_about_stays(text: str) -> None:
    assert redacted(text) == text


@pytest.mark.parametrize("unit", ["a", "1 ", "(1", "a@", "password ", "-----BEGIN A-----", "eyJ", "+1", "AA11 "])
def test_a_long_text_takes_no_time(unit: str) -> None:
    began = time.process_time()
    redacted(unit * (8000 // len(unit)))
    assert time.process_time() - began < 1
