"""POST /v1/documents/batch: NDJSON in, NDJSON out, a line answered when it is kept.

The one asynchronous route: only so can lines be answered while later ones still arrive. Each line's work runs on the
thread pool like any other route's.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from api.deps import Caller, ServiceDep, Writer
from api.errors import told
from api.schemas import DocumentIn
from api.service import Service
from api.submissions import accept, from_text
from core.errors import BodyTooLarge, CitadelError

router = APIRouter(prefix="/v1/documents", tags=["documents"])
NDJSON = "application/x-ndjson"
OPENAPI: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            NDJSON: {
                "schema": {"type": "string"},
                "example": '{"external_id": "a", "text": "First."}\n{"external_id": "b", "text": "Second."}\n',
            }
        },
    }
}


class _Duplex(StreamingResponse):
    """Answers while the body still arrives; Starlette's own would read the body away to notice a disconnect."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.stream_response(send)


@router.post("/batch", summary="Submit many documents", openapi_extra=OPENAPI, response_class=StreamingResponse,
             responses={200: {"content": {NDJSON: {}}, "description": "A line for each line, in order"}})  # fmt: skip
async def post_batch(request: Request, caller: Writer, service: ServiceDep) -> StreamingResponse:
    """A line for each line, in order, sent after its commit. A broken line is told and the others go on."""
    return _Duplex(_answers(request, service, caller), media_type=NDJSON)


async def _answers(request: Request, service: Service, caller: Caller) -> AsyncIterator[bytes]:
    number = 0
    async for line in _lines(request, service.max_body_bytes):
        number += 1
        if line is None or line.strip():
            answer = await run_in_threadpool(_answer, service, caller, line)
            yield json.dumps({"line": number, **answer}).encode() + b"\n"


async def _lines(request: Request, max_bytes: int) -> AsyncIterator[bytes | None]:
    """The body's lines; None for one that is too long, whose rest is passed over."""
    held, skipping = bytearray(), False
    async for part in request.stream():
        *whole, rest = part.split(b"\n")
        for piece in whole:
            yield None if skipping or len(held) + len(piece) > max_bytes else bytes(held + piece)
            held, skipping = bytearray(), False
        skipping = skipping or len(held) + len(rest) > max_bytes
        if skipping:
            held.clear()
        else:
            held += rest
    if held or skipping:
        yield None if skipping else bytes(held)


def _answer(service: Service, caller: Caller, line: bytes | None) -> dict[str, Any]:
    external_id = None
    try:
        if line is None:
            raise BodyTooLarge(f"a line may have up to {service.max_body_bytes} bytes")
        body = DocumentIn.model_validate_json(line)
        external_id = body.external_id
        kept = accept(service, caller, from_text(body), body.labels is None, None)
    except ValidationError as error:
        first = error.errors()[0]
        return {"error": {"code": "invalid", "detail": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}}
    except CitadelError as error:
        return {"external_id": external_id, "error": {"code": error.code, "detail": told(error)}}
    return {"external_id": external_id, **kept.model_dump(mode="json", exclude_none=True)}
