"""What the parser tests share: reading a parsed document, and the files they make."""

import io
import zipfile
from collections.abc import Mapping

from core.records import ParsedDocument


def outline(document: ParsedDocument) -> list[tuple[str, int, str]]:
    """(kind, level, text) of each element, after a check that the elements lie on the text in order."""
    position = 0
    for element in document.elements:
        assert position <= element.start < element.end <= len(document.text)
        assert document.text[element.start : element.end].strip()
        position = element.end
    return [(element.kind, element.level, document.text[element.start : element.end]) for element in document.elements]


def texts(document: ParsedDocument) -> list[str]:
    """The text of each element."""
    return [text for _, _, text in outline(document)]


def archive(parts: Mapping[str, bytes | str]) -> bytes:
    """A zip archive of the parts, in their order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, part in parts.items():
            file.writestr(name, part)
    return buffer.getvalue()
