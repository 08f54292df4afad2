"""Pictures by themselves: the text on them, read by OCR where that is on."""

import io
from collections.abc import Iterator
from functools import partial

from PIL import Image, ImageOps, ImageSequence

from core.errors import CorruptDocument, EmptyDocument, ParserLimit
from core.records import ParsedDocument
from ingest.confine import ParseLimits
from ingest.parsers.canonical import assemble
from ingest.parsers.ocr import DPI, Paint, Picture, read_pictures

# Those that scanners, telephones and fax machines write, by Pillow's name of the format.
MIME_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/tiff": "TIFF", "image/webp": "WEBP", "image/bmp": "BMP"}
_SMALL = 1000  # points on the longer side, below which a picture is taken for one of 100 dpi


def parse_picture(content: bytes, limits: ParseLimits) -> ParsedDocument:
    """The text on a picture; a page for each of a TIFF's. Raises EmptyDocument, CorruptDocument, ParserLimit and
    OcrUnavailable."""
    try:
        # Only the decoders named here: each one more is more that a stranger's bytes reach.
        image = Image.open(io.BytesIO(content), formats=tuple(MIME_TYPES.values()))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise CorruptDocument(f"the picture cannot be read ({type(error).__name__})") from error
    with image:
        if getattr(image, "n_frames", 1) > limits.pages:
            raise ParserLimit(f"the picture has more than {limits.pages} pages")
        scans = read_pictures(list(_frames(image, limits)), limits)
        kind = next((mime for mime, name in MIME_TYPES.items() if name == image.format), "")
    if not scans.pieces:
        raise EmptyDocument("; ".join(("OCR finds no text on the picture", *scans.warnings)))
    return assemble(scans.pieces, kind, None, scans.warnings)


def _frames(image: Image.Image, limits: ParseLimits) -> Iterator[tuple[int, Paint | None]]:
    for number, frame in enumerate(ImageSequence.Iterator(image), start=1):
        fits = frame.width * frame.height <= limits.ocr_pixels
        yield number, partial(_painted, image, number - 1) if fits else None


def _painted(image: Image.Image, index: int) -> Picture:
    image.seek(index)
    grey = ImageOps.exif_transpose(_on_white(image)).convert("L")
    dpi = int(min(image.info.get("dpi", (0, 0)))) or (DPI if max(grey.size) > _SMALL else 100)
    return Picture(grey.width, grey.height, grey.width, grey.tobytes(), dpi)


def _on_white(image: Image.Image) -> Image.Image:
    """Black on clear would be black on black in grey."""
    if "transparency" not in image.info and "A" not in image.mode:
        return image
    clear = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
