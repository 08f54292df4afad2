"""A cap on request bodies, counted as they arrive; a body is never read beyond it."""

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import problem
from core.errors import BodyTooLarge

STREAMED = "/v1/documents/batch"  # capped by the line instead


class BodyLimit:
    """ASGI middleware: 413 as soon as a body is, or says it is, larger than `max_bytes`."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == STREAMED:
            await self._app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > self._max_bytes:
            response = problem(413, BodyTooLarge.code, f"a body may have up to {self._max_bytes} bytes")
            await response(scope, receive, send)
            return
        await self._app(scope, self._counted(receive), send)

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_bytes:
                # the framework passes its own exceptions through, and turns others into 400
                raise HTTPException(413, f"a body may have up to {self._max_bytes} bytes")
            return message

        return counted
