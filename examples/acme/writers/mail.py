"""EML by the standard library."""

from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape

from markup import Block, Sheet

HEADERS = {"From": "from", "To": "to", "Cc": "cc", "Subject": "subject"}


def write_eml(sheet: Sheet) -> bytes:
    """The content file as a mail, with an HTML alternative where its front matter asks for one."""
    mail = EmailMessage(policy=SMTP)
    for name, key in HEADERS.items():
        if key in sheet.meta:
            mail[name] = sheet.meta[key]
    mail["Date"] = format_datetime(sheet.date)
    mail["Message-ID"] = f"<{sheet.meta['id']}>"
    if "in_reply_to" in sheet.meta:
        mail["In-Reply-To"] = f"<{sheet.meta['in_reply_to']}>"
    mail.set_content(sheet.body, cte="quoted-printable")
    if sheet.meta.get("html") == "true":
        mail.add_alternative(to_html(sheet.blocks), subtype="html", cte="quoted-printable")
        mail.set_boundary(f"=_{sheet.meta['id'].split('@')[0]}")  # the library's own is random
    return mail.as_bytes()


def to_html(blocks: tuple[Block, ...]) -> str:
    """The blocks as a small HTML page."""
    return "<html><body>\n" + "\n".join(block_html(block) for block in blocks) + "\n</body></html>\n"


def block_html(block: Block) -> str:
    """One block as HTML; mails hold paragraphs and lists only."""
    if block.kind == "list":
        return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in block.lines) + "</ul>"
    return f"<p>{escape(block.text)}</p>"
