"""Many documents in one stream: NDJSON out, a record back for each line.

httpx reads nothing of an answer before its request is sent whole, while the server answers each line after its commit:
in one long request the unread answers fill the buffers of the connection and stop both sides (300,000 refused lines in
one request ended in a write time-out; in requests of 200 they all came back). So the stream goes out in requests small
enough for their answers to fit, and memory stays bounded however long the stream is.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing

from citadel_client.errors import UnexpectedAnswer
from citadel_client.records import BatchRecord, NewDocument, batch_record_of
from citadel_client.wire import Wire, parsed, translated

PATH = "/v1/documents/batch"
NDJSON = {"Content-Type": "application/x-ndjson"}
MAX_BYTES = 4 * 2**20  # of a request with more than one line

Line = tuple[str, bytes]  # external id, and the document as JSON with its newline


def send_batch(wire: Wire, documents: Iterable[NewDocument], lines_per_request: int) -> Iterator[BatchRecord]:
    """A record for each document, in order, as the server answers. Raises CitadelError when a request fails whole."""
    index = 0
    for lines in slices(map(_line, documents), lines_per_request, MAX_BYTES):
        yield from _send(wire, lines, index)
        index += len(lines)


def slices(lines: Iterable[Line], most: int, most_bytes: int) -> Iterator[list[Line]]:
    """Consecutive runs of up to `most` lines and `most_bytes` bytes; a line that is larger goes alone."""
    run: list[Line] = []
    size = 0
    for line in lines:
        if run and (len(run) == most or size + len(line[1]) > most_bytes):
            yield run
            run, size = [], 0
        run.append(line)
        size += len(line[1])
    if run:
        yield run


def split_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their newline, blank ones left out. Only \\n ends a line: JSON text may hold U+2028 and U+0085."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _line(document: NewDocument) -> Line:
    return document.external_id, json.dumps(document.as_json(), allow_nan=False).encode() + b"\n"


def _send(wire: Wire, lines: list[Line], first: int) -> Iterator[BatchRecord]:
    response = wire.open("POST", PATH, repeatable=True, content=b"".join(line for _, line in lines), headers=NDJSON)
    answered = 0
    with closing(response), translated():
        for answer in split_lines(response.iter_bytes()):
            if answered == len(lines):
                raise UnexpectedAnswer(f"POST {PATH}: more lines came back than the {len(lines)} that were sent")
            yield _record(answer, first + answered, lines[answered][0])
            answered += 1
    if answered < len(lines):
        raise UnexpectedAnswer(
            f"POST {PATH}: {len(lines) - answered} of {len(lines)} lines were not answered, from "
            f"{lines[answered][0]!r} on: submit those again, what was kept already comes back unchanged"
        )


def _record(answer: bytes, index: int, external_id: str) -> BatchRecord:
    return parsed(f"POST {PATH}", lambda body: batch_record_of(body, index, external_id), answer)
