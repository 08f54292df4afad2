"""A tenant's index as files on this host: written by one follower, read whole by any number of processes.

<root>/<tenant>/<profile>/manifest           what is current, by names and digests, with a digest of its own
                          <name>.segment     a segment's arrays, never changed
                          <name>.vectors     its chunks' vectors, where the dense leg is answered from here
                          <name>.labels      its documents' label sets; a document that left has -1

A file gets its name when all of it is written. What a reader holds is in its own memory and was checked there: files
that are mapped would end the process when somebody cuts them short.
"""

import hashlib
import io
import json
import secrets
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplicaUnavailable
from retrieval.analyze import analysis
from retrieval.matrix import Matrix, packed, unpacked
from retrieval.segment import Segment, arrays_of
from store.following import Position

FORMAT = 2
MANIFEST = "manifest"
DIGEST = 32  # bytes
BROKEN = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)

Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Part:
    """A segment and the label sets of its documents [d]; -1: that document is not to be found here any more."""

    segment: Segment
    labels: Labels
    matrix: Matrix | None = None  # a row for each of the segment's; None: the dense leg goes to Postgres
    erase_by: float | None = None  # seconds of the epoch; by then, what left is not in the segment either

    def alive(self) -> NDArray[np.bool_]:
        """Which of its documents are to be found [d]."""
        return self.labels >= 0


@dataclass(frozen=True, slots=True)
class Replica:
    """The index of a tenant under a profile, as one snapshot of Postgres had it."""

    position: Position
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Stored:
    """A replica and the files that it lies in."""

    replica: Replica
    files: Mapping[str, str]  # name → digest
    names: tuple[tuple[str, str, str], ...]  # by part: of its segment, labels and vectors; "" where there are none
    manifest: str  # digest


def folder_of(root: Path, tenant_id: UUID, profile_id: int) -> Path:
    """Where the replica lies."""
    return root / str(tenant_id) / str(profile_id)


def is_replica(folder: Path) -> bool:
    """Whether a folder has the name of one, so that nothing else is ever taken for a replica that nobody needs."""
    try:
        return str(UUID(folder.parent.name)) == folder.parent.name and folder.name.isdecimal()
    except ValueError:
        return False


def read(folder: Path, known: Stored | None = None, vectors: bool = True) -> Stored:
    """The current replica, with what did not change taken from `known`; without its vectors where those are not wanted.

    Raises ReplicaUnavailable when there is none, it is damaged, or it was made by another analysis.
    """
    while True:
        before = stamp(folder)
        try:
            return _read(folder, known, vectors)
        except BROKEN as error:
            if before and before != stamp(folder):  # its files are gone because a newer one has come
                continue
            raise ReplicaUnavailable(f"the replica in {folder} cannot be read: {error!r}") from error


def publish(folder: Path, replica: Replica, before: Stored | None = None) -> Stored:
    """Make this the current replica; what of it stands in `before` is not written again."""
    for place in (folder.parent, folder):
        place.mkdir(mode=0o700, exist_ok=True)
    files: dict[str, str] = {}
    names = []
    for part in replica.parts:
        kept = _kept(before, part)
        new = kept[0] or _write(folder, "segment", _packed(arrays_of(part.segment)))
        moved = kept[1] or _write(folder, "labels", _packed({"labels": part.labels}))
        beside = kept[2] or (_write(folder, "vectors", *packed(part.matrix)) if part.matrix is not None else ("", ""))
        files |= {name: digest for name, digest in (new, moved, beside) if name}
        names.append((new[0], moved[0], beside[0]))
    parts = [
        {"segment": segment, "labels": labels, "vectors": vectors, "erase_by": part.erase_by}
        for (segment, labels, vectors), part in zip(names, replica.parts, strict=True)
    ]
    body = {"format": FORMAT, "analysis": analysis(), "position": asdict(replica.position), "files": files,
            "parts": parts}  # fmt: skip
    text = json.dumps(body).encode()
    _, digest = _write(folder, MANIFEST, text + b"\n" + _digest(text).encode())
    sweep(folder, files)
    return Stored(replica, files, tuple(names), digest)


def sweep(folder: Path, files: Mapping[str, str]) -> None:
    """Remove every file that is not one of these: those of an earlier state, and what a killed writer left."""
    for path in folder.iterdir():
        if path.name not in (*files, MANIFEST):
            path.unlink()


def stamp(folder: Path) -> tuple[int, ...]:
    """Changes when the folder's manifest does; empty when it has none."""
    try:
        told = (folder / MANIFEST).stat()
    except OSError:
        return ()
    return told.st_ino, told.st_mtime_ns, told.st_size


def stamps(folder: Path, stored: Stored) -> list[tuple[int, ...]]:
    """Changes when anybody touches the replica's files. Raises ReplicaUnavailable when one is missing."""
    try:
        told = [(folder / name).stat() for name in (MANIFEST, *stored.files)]
    except OSError as error:
        raise ReplicaUnavailable(f"a file of the replica is missing: {error}") from error
    return [(each.st_ino, each.st_mtime_ns, each.st_size) for each in told]


def _read(folder: Path, known: Stored | None, vectors: bool) -> Stored:
    content = (folder / MANIFEST).read_bytes()
    text, _, digest = content.rpartition(b"\n")
    if _digest(text) != digest.decode():
        raise ValueError("the manifest is damaged")
    body = json.loads(text)
    if (body["format"], body["analysis"]) != (FORMAT, analysis()):
        raise ValueError("it was made by another release")
    held = _by_name(known) if known else {}
    parts, names = [], []
    for each in body["parts"]:
        segment_name, labels_name, vectors_name = each["segment"], each["labels"], each["vectors"]
        segment, labels, matrix = held.get(segment_name), held.get(labels_name), held.get(vectors_name)
        if segment is None:
            segment = Segment(**_unpacked(folder, segment_name, body["files"]))
        if labels is None:
            labels = _unpacked(folder, labels_name, body["files"])["labels"]
        if matrix is None and vectors_name and vectors:
            matrix = unpacked(_content(folder, vectors_name, body["files"]), len(segment))
        parts.append(Part(segment, labels, matrix, each["erase_by"]))
        names.append((segment_name, labels_name, vectors_name))
    replica = Replica(Position(**body["position"]), tuple(parts))
    return Stored(replica, body["files"], tuple(names), _digest(content))


def _arrays(part: Part) -> tuple[Any, Any, Any]:
    return part.segment, part.labels, part.matrix


def _by_name(stored: Stored) -> dict[str, Any]:
    arrays = [array for part in stored.replica.parts for array in _arrays(part)]
    return dict(zip([name for names in stored.names for name in names], arrays, strict=True))


def _kept(before: Stored | None, wanted: Part) -> list[tuple[str, str] | None]:
    """Name and digest of the files that have this part's very segment, labels and vectors already."""
    if before is None:
        return [None, None, None]
    known = {id(array): name for name, array in _by_name(before).items() if array is not None}
    names = [known.get(id(array)) for array in _arrays(wanted)]
    return [(name, before.files[name]) if name else None for name in names]


def _write(folder: Path, kind: str, *pieces: Any) -> tuple[str, str]:
    """Write bytes or arrays of them, whole or not at all; returns the file's name and digest."""
    name = MANIFEST if kind == MANIFEST else f"{secrets.token_hex(8)}.{kind}"
    unfinished = folder / f"{secrets.token_hex(8)}.unfinished"
    unfinished.touch(mode=0o600)
    with unfinished.open("wb") as file:
        for piece in pieces:
            file.write(piece)
    unfinished.replace(folder / name)
    return name, _digest(*pieces)


def _packed(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _content(folder: Path, name: str, digests: Mapping[str, str]) -> NDArray[np.uint8]:
    content = np.fromfile(folder / name, np.uint8)
    if _digest(content) != digests[name]:
        raise ValueError(f"{name} is damaged")
    return content


def _unpacked(folder: Path, name: str, digests: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    content = _content(folder, name, digests).tobytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def _digest(*pieces: Any) -> str:
    digest = hashlib.blake2b(digest_size=DIGEST)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
