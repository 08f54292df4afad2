"""Mail as the standard library writes it, and as the wild does."""

from email.message import EmailMessage

import pytest

from core.attachments import Attachment
from core.errors import EncryptedDocument
from ingest.confine import ParseLimits
from ingest.parse import parse
from ingest.parsers.attached import MAX_TOLD
from tests.unit.parsing import outline, texts


def mail(**headers: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in {
        "From": "Ana <ana@acme.example>",
        "To": "ben@acme.example",
        "Subject": "Lunch",
        **headers,
    }.items():
        message[name.replace("_", "-")] = value
    return message


def read(message: EmailMessage) -> list[str]:
    return texts(parse(message.as_bytes(), "message/rfc822"))


HEAD = "From: Ana <ana@acme.example>\nTo: ben@acme.example\nSubject: Lunch"


def test_headers_then_body() -> None:
    message = mail(Date="Mon, 12 Jan 2026 10:00:00 +0000", Cc="Zoë <zoe@acme.example>")
    message.set_content("At noon?\n\nIn the Straße café.\n")
    document = parse(message.as_bytes(), "message/rfc822")
    assert document.title == "Lunch"
    assert texts(document) == [
        "From: Ana <ana@acme.example>\nTo: ben@acme.example\nCc: Zoë <zoe@acme.example>\n"
        "Date: Mon, 12 Jan 2026 10:00:00 +0000\nSubject: Lunch",
        "At noon?",
        "In the Straße café.",
    ]


def test_plain_text_is_preferred_and_html_is_read() -> None:
    message = mail()
    message.set_content("The plain one.")
    message.add_alternative("<h1>The</h1><p>html one</p>", subtype="html")
    assert read(message) == [HEAD, "The plain one."]
    only = mail()
    only.set_content("<h1>The</h1><p>html one</p>", subtype="html")
    assert outline(parse(only.as_bytes(), "message/rfc822"))[1:] == [
        ("heading", 1, "The"),
        ("paragraph", 0, "html one"),
    ]


def test_an_empty_plain_part_gives_way_to_html() -> None:
    message = mail()
    message.set_content("\n")
    message.add_alternative("<p>html one</p>", subtype="html")
    assert read(message) == [HEAD, "html one"]


def test_attachments_come_beside_the_text() -> None:
    message = mail()
    message.set_content("See the file.")
    message.add_attachment(b"secret,1\n", maintype="text", subtype="csv", filename="präis.csv")
    message.add_attachment(b"\x89PNG", maintype="image", subtype="png")
    message.add_attachment(b"", maintype="application", subtype="pdf", filename="empty.pdf")
    message.add_attachment(b"sig", maintype="application", subtype="pgp-signature", filename="signature.asc")
    document = parse(message.as_bytes(), "message/rfc822")
    assert texts(document) == [HEAD, "See the file."] and document.warnings == ()
    assert document.attachments == (
        Attachment("präis.csv", "text/csv", b"secret,1\n"),
        Attachment("", "image/png", b"\x89PNG"),
    )
    assert [(refused.name, refused.code) for refused in document.refused] == [("empty.pdf", "attachment_unread")]


def test_pictures_that_the_body_shows_are_no_attachments() -> None:
    message = mail()
    message.set_content('<p>The <img src="cid:logo"></p>', subtype="html")
    message.add_related(b"\x89PNG", maintype="image", subtype="png", cid="<logo>")
    message.add_attachment(b"GIF8", maintype="image", subtype="gif", disposition="inline", filename="line.gif")
    message.add_attachment(b"II*\0", maintype="image", subtype="tiff", filename="scan.tiff", cid="<scan>")
    document = parse(message.as_bytes(), "message/rfc822")
    assert [file.name for file in document.attachments] == ["scan.tiff"]


def test_files_within_an_alternative_are_attachments_too() -> None:
    message = mail()
    message.set_content("The plain one.")
    message.add_alternative("<p>html one</p>", subtype="html")
    (_, rich) = message.iter_parts()
    assert isinstance(rich, EmailMessage)
    rich.add_attachment(b"%PDF-", maintype="application", subtype="pdf", filename="a.pdf")  # as Apple Mail does
    document = parse(message.as_bytes(), "message/rfc822")
    assert texts(document) == [HEAD, "The plain one."]
    assert [file.name for file in document.attachments] == ["a.pdf"]


@pytest.mark.parametrize(
    ("limits", "taken", "code"),
    [
        (ParseLimits(attachments=0), [], "attachments_off"),
        (ParseLimits(attachments=2), ["0.txt", "1.txt"], "attachment_count"),
        (ParseLimits(attachment_bytes=35), ["0.txt", "1.txt", "2.txt"], "attachment_size"),
    ],
)
def test_attachments_over_a_limit_are_refused_by_name(limits: ParseLimits, taken: list[str], code: str) -> None:
    message = mail()
    message.set_content("Many.")
    for number in range(4):
        message.add_attachment(b"x" * 10, maintype="application", subtype="x-y", filename=f"{number}.txt")
    document = parse(message.as_bytes(), "message/rfc822", limits)
    assert [file.name for file in document.attachments] == taken
    refused = {(each.name, each.code) for each in document.refused}
    assert refused == {(f"{number}.txt", code) for number in range(len(taken), 4)}


def test_refusals_without_end_are_counted() -> None:
    message = mail()
    message.set_content("Many.")
    for number in range(200):
        message.add_attachment(b"x", maintype="application", subtype="x-y", filename=f"{number}.txt")
    document = parse(message.as_bytes(), "message/rfc822", ParseLimits(attachments=3))
    assert len(document.refused) == MAX_TOLD + 1 and document.refused[-1].name == f"and {197 - MAX_TOLD} more"


def test_a_forwarded_message_is_read_under_its_subject_and_an_attached_one_is_a_file() -> None:
    inner = mail(Subject="Budget")
    inner.set_content("It is 12.")
    message = mail()
    message.set_content("See below.")
    message.add_attachment(inner, disposition="inline")
    message.add_attachment(inner)
    document = parse(message.as_bytes(), "message/rfc822")
    assert outline(document)[1:] == [
        ("paragraph", 0, "See below."),
        ("heading", 1, "Budget"),
        ("paragraph", 0, "From: Ana <ana@acme.example>\nTo: ben@acme.example"),
        ("paragraph", 0, "It is 12."),
    ]
    (attached,) = document.attachments
    assert (attached.name, attached.mime_type) == ("Budget.eml", "message/rfc822")
    assert parse(attached.content, "message/rfc822").text == parse(inner.as_bytes(), "message/rfc822").text


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        (b"=?iso-8859-1?Q?Fr=F6sche?= und =?UTF-8?B?w6RsdGVy?=", "Frösche und älter"),
        (b"=?utf-8?Q?one_?= =?utf-8?Q?two?=", "one two"),
        ("Frösche".encode("latin-1"), "Frösche"),
        ("Frösche".encode(), "Frösche"),
        (b"=?unknown-8?Q?a?= b", "a b"),
        (b"=?utf-8?B?broken", "=?utf-8?B?broken"),
    ],
)
def test_subjects_as_the_wild_writes_them(subject: bytes, expected: str) -> None:
    raw = b"From: a@b.example\nSubject: " + subject + b"\nContent-Type: text/plain; charset=iso-8859-1\n\nbody\n"
    assert parse(raw, "message/rfc822").title == expected


def test_a_body_in_the_charset_it_states() -> None:
    raw = b"From: a@b.example\nContent-Type: text/plain; charset=utf-7\n\nFr+APY-sche\n"
    assert texts(parse(raw, "message/rfc822"))[1] == "Frösche"


def test_a_mislabelled_multipart_is_still_text() -> None:
    raw = b"From: a@b.example\nContent-Type: multipart/mixed\n\nno parts here\n"
    assert texts(parse(raw, "message/rfc822")) == ["From: a@b.example", "no parts here"]


def test_utf_16_mail() -> None:
    message = mail()
    message.set_content("At noon?")
    assert texts(parse(message.as_string().encode("utf-16"), "message/rfc822")) == [HEAD, "At noon?"]


def test_an_encrypted_body_is_said_to_be() -> None:
    raw = b"From: a@b.example\nSubject: x\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n\nMIIB\n"
    with pytest.raises(EncryptedDocument, match="submit it decrypted"):
        parse(raw, "message/rfc822")


def test_mail_within_mail_without_end_is_cut_short() -> None:
    message = mail()
    message.set_content("innermost")
    for _ in range(20):
        outer = mail()
        outer.set_content("next")
        outer.add_attachment(message, disposition="inline")
        message = outer
    document = parse(message.as_bytes(), "message/rfc822")
    assert "innermost" not in document.text
    assert [(refused.name, refused.code) for refused in document.refused] == [("Lunch", "attachment_depth")]


def test_what_a_reply_quotes_stands_under_its_own_heading() -> None:
    body = (
        "Ten days are fine.\n\n"
        "On Mon, 3 Mar 2025 at 10:00, Ben Example <ben@example.com>\nwrote:\n> Is a week enough?\n>\n"
        "> On Sun, 2 Mar 2025, Ana Example wrote:\n>> How long before?\n\n"
        "-----Original Message-----\nFrom: Carl\n\nOn it.\n"
    )
    document = parse(f"From: a@b.example\nTo: c@d.example\nSubject: Trip\n\n{body}".encode(), "message/rfc822")
    assert outline(document)[1:] == [
        ("paragraph", 0, "Ten days are fine."),
        ("heading", 2, "On Mon, 3 Mar 2025 at 10:00, Ben Example <ben@example.com>\nwrote:"),
        ("paragraph", 0, "> Is a week enough?\n>"),
        ("heading", 3, "> On Sun, 2 Mar 2025, Ana Example wrote:"),
        ("paragraph", 0, ">> How long before?"),
        ("heading", 2, "-----Original Message-----"),
        ("paragraph", 0, "From: Carl"),
        ("paragraph", 0, "On it."),
    ]
    assert document.title == "Trip"


def test_a_broken_alternative_behind_one_that_is_told_costs_nothing() -> None:
    raw = (
        b"From: a@b.example\nContent-Type: multipart/alternative; boundary=x\n\n"
        b"--x\nContent-Type: text/plain\n\nThe plain one.\n"
        b"--x\nContent-Type: text/html\n\n<table><tr><td colspan=2>\x0b\x1a&#1;</td></tr></table>\n"
        b"--x\nContent-Type: application/pdf; name=a.pdf\nContent-Transfer-Encoding: base64\n\nJVBERi0=\n--x--\n"
    )
    document = parse(raw, "message/rfc822")
    assert texts(document) == ["From: a@b.example", "The plain one."]
    assert document.attachments == (Attachment("a.pdf", "application/pdf", b"%PDF-"),)
