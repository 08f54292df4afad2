"""What is found out of a parsed text before anything of it is kept: its language, what it holds, what it resembles."""

from dataclasses import replace

from core.records import ParsedDocument
from core.sensitive import Policy
from ingest.fingerprint import fingerprint
from ingest.screen import REGION, holds, screen
from models.language import language_of


def prepare(
    parsed: ParsedDocument, title: str | None, filename: str | None, policy: Policy, region: str = REGION
) -> ParsedDocument:
    """The document as it is stored: under its submitted title, in its language, screened, and with the fingerprint of
    the text that is left. Raises SensitiveContent.

    A file's name stands for a title that is not there: where it holds something, it is screened as one.
    """
    title = title or parsed.title or (filename if filename and holds(filename, policy, region) else None)
    named = replace(parsed, title=title, language=language_of(parsed.text))
    screened = screen(named, policy, region)
    return replace(screened, fingerprint=fingerprint(screened.text))
