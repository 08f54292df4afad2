"""The FastAPI application."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool

from api import docs, errors
from api.admission import Admission
from api.body import BodyLimit
from api.metrics import Metrics
from api.routes import access, batch, documents, feedback, fusion, health, jobs, scim, search, sources
from api.service import Service

DESCRIPTION = """Labelled documents in, permitted and cited context out.

Every call but `/healthz` and `/readyz` needs an API key or an OIDC token: `Authorization: Bearer <key or token>`. A key
with the scope `act_for` names the end user in `X-Citadel-Act-For`; a token speaks for its own. Errors are RFC 9457
problem documents, and below `/scim/` those of RFC 7644."""


def create_app(open_service: Callable[[], AbstractContextManager[Service]], max_body_bytes: int) -> FastAPI:
    """The app; `open_service` is entered when it starts and left when it stops."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = open_service()
        app.state.service = await run_in_threadpool(opened.__enter__)
        try:
            yield
        finally:
            await run_in_threadpool(opened.__exit__, None, None, None)

    app = FastAPI(title="Citadel", version="1", description=DESCRIPTION, lifespan=lifespan, responses=errors.RESPONSES,
                  docs_url=None, redoc_url=None)  # fmt: skip
    app.state.metrics = Metrics()
    app.state.admission = Admission()
    for routes in (search, feedback, batch, documents, jobs, sources, access, fusion, scim, health):
        app.include_router(routes.router)
    docs.install(app)
    errors.install(app)
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    return app
