"""Real documents, damaged as fuzzers, faulty disks and attackers damage them; the same seed gives the same files."""

import io
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

MAX_BYTES = 1024**2  # of a document that is taken; larger ones make a run long and no case new


@dataclass(frozen=True, slots=True)
class Mutant:
    """A damaged file."""

    name: str  # its source's
    how: str
    content: bytes


def sources(folder: Path) -> dict[str, list[Path]]:
    """The documents below a folder by their suffix."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix and 0 < path.stat().st_size <= MAX_BYTES:
            found.setdefault(path.suffix.lower(), []).append(path)
    return found


def mutant(by_suffix: Mapping[str, Sequence[Path]], seed: int, number: int) -> Mutant:
    """The file of that number: a suffix as often as another, then any of its documents, then any damage."""
    chance = Random(f"{seed}:{number}")
    path = chance.choice(by_suffix[chance.choice(sorted(by_suffix))])
    other = chance.choice(by_suffix[chance.choice(sorted(by_suffix))]).read_bytes()
    content = path.read_bytes()
    how = chance.choice(sorted(_DAMAGES))
    if how.startswith("inside") and not zipfile.is_zipfile(io.BytesIO(content)):
        how = "flip bits"
    return Mutant(path.name, how, _DAMAGES[how](content, other, chance))


def _flip(content: bytes, _: bytes, chance: Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 4, 32, 256))):
        damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged)


def _truncate(content: bytes, _: bytes, chance: Random) -> bytes:
    return content[: chance.randrange(len(content))]


def _cut_out(content: bytes, _: bytes, chance: Random) -> bytes:
    start, end = sorted(chance.randrange(len(content)) for _ in range(2))
    return content[:start] + content[end:]


def _splice(content: bytes, other: bytes, chance: Random) -> bytes:
    at, start = chance.randrange(len(content)), chance.randrange(len(other))
    return content[:at] + other[start : start + chance.choice((16, 1024, 65536))] + content[at:]


def _repeat(content: bytes, _: bytes, chance: Random) -> bytes:
    start = chance.randrange(len(content))
    piece = content[start : start + chance.choice((4, 64, 1024))]
    return (
        content[:start]
        + piece * min(chance.choice((10, 1000, 100_000)), 4 * MAX_BYTES // max(1, len(piece)))
        + content[start:]
    )


def _other_head(content: bytes, other: bytes, chance: Random) -> bytes:
    length = chance.choice((4, 8, 64, 512))
    return other[:length] + content[length:]


def _zeros(content: bytes, _: bytes, chance: Random) -> bytes:
    start = chance.randrange(len(content))
    length = chance.choice((8, 512, 4096))
    return content[:start] + bytes(length) + content[start + length :]


def _numbers(content: bytes, _: bytes, chance: Random) -> bytes:
    """Digits in a row become the largest numbers: lengths, offsets and counts of PDF, XML and mail."""
    damaged = bytearray(content)
    digits = [place for place, byte in enumerate(content) if 48 <= byte <= 57]
    for place in chance.sample(digits, min(len(digits), chance.choice((1, 8, 64)))):
        damaged[place] = 57
    return bytes(damaged)


def _bomb_text(content: bytes, _: bytes, chance: Random) -> bytes:
    at = chance.randrange(len(content))
    opening = chance.choice((b"<div>", b"[", b"(", b"<<", b"{", b">", b"<!--", b"q ", b"--x\n", b"\xef\xbb\xbf"))
    return content[:at] + opening * chance.choice((1000, 100_000)) + content[at:]


def _inside(damage: Callable[[bytes, bytes, Random], bytes]) -> Callable[[bytes, bytes, Random], bytes]:
    """The damage done to one part of a zip archive, which is whole again around it."""

    def damaged(content: bytes, other: bytes, chance: Random) -> bytes:
        buffer = io.BytesIO()
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                names = [info.filename for info in archive.infolist() if info.file_size and not info.flag_bits & 1]
                chosen = chance.choice(names)
                with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as written:
                    for name in dict.fromkeys(names):
                        part = archive.read(name)
                        told = damage(part, other, chance) if name == chosen else part
                        written.writestr(zipfile.ZipInfo(name), told, zipfile.ZIP_DEFLATED)  # of no time of its own
        except (zipfile.BadZipFile, zlib.error, IndexError, NotImplementedError, EOFError, ValueError, OSError):
            return _flip(content, other, chance)  # the source itself is damaged
        return buffer.getvalue()

    return damaged


_DAMAGES: dict[str, Callable[[bytes, bytes, Random], bytes]] = {
    "flip bits": _flip,
    "truncate": _truncate,
    "cut out": _cut_out,
    "splice": _splice,
    "repeat": _repeat,
    "other head": _other_head,
    "zeros": _zeros,
    "numbers": _numbers,
    "bomb": _bomb_text,
    "inside: flip bits": _inside(_flip),
    "inside: truncate": _inside(_truncate),
    "inside: splice": _inside(_splice),
    "inside: repeat": _inside(_repeat),
    "inside: numbers": _inside(_numbers),
    "inside: bomb": _inside(_bomb_text),
}
