"""A new route or field without a probe fails here."""

from contextlib import nullcontext
from typing import cast

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel

from api.app import create_app
from api.service import Service
from tests.leaks.asking import Tally
from tests.leaks.probes import PROBES
from tests.leaks.registry import FIELDS, ROUTES, missed, unregistered


@pytest.fixture
def app() -> FastAPI:
    """The app, not started: its routes and its document are all that is asked of it."""
    return create_app(lambda: nullcontext(cast(Service, None)), 1000)


def test_every_route_and_field_is_registered(app: FastAPI) -> None:
    assert unregistered(app) == []


def test_every_probe_is_named(app: FastAPI) -> None:
    named = {*ROUTES.values(), *(probe for fields in FIELDS.values() for probe in fields.values())}
    # of routes that another probe stands for
    alone = {"search_word", "search_filter", "cursor", "names", "keyless", "directory"}
    assert set(PROBES) - named == alone


class Extra(BaseModel):
    """An answer that nobody registered."""

    surprise: str


def test_a_new_route_or_field_is_noticed(app: FastAPI, tmp_path: object) -> None:
    router = APIRouter()
    router.add_api_route("/v1/new", lambda: Extra(surprise=""), response_model=Extra)
    router.add_api_route("/hidden", lambda: "", include_in_schema=False)
    app.include_router(router)
    app.mount("/files", StaticFiles(directory=str(tmp_path)))
    wrong = "\n".join(unregistered(app))
    assert all(name in wrong for name in ("('get', '/v1/new')", "('get', '/hidden')", "/files", "Extra.surprise"))


def test_what_no_answer_held_is_noticed(app: FastAPI) -> None:
    wrong = missed(app, Tally(fields={("post", "/v1/search", "activity[].hidden_count")}))
    assert any("hidden_count" in line for line in wrong)
    assert sum("was never asked" in line for line in wrong) == len(ROUTES)
    assert any("CitationOut.content_hash was never answered" in line for line in wrong)
