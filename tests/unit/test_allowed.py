"""Places that an operator may name over the API: what looks as if it lay below an allowed one, and does not."""

import pytest

from core.errors import Invalid
from ingest.sources.allowed import check_place, check_settings

ALLOWED = ("https://docs.acme.example/public", "s3://acme-docs/shared/")


@pytest.mark.parametrize(
    "url",
    ["https://docs.acme.example/public", "https://docs.acme.example/public/", "https://DOCS.acme.example/public/a/b",
     "s3://acme-docs/shared", "s3://acme-docs/shared/reports"],
)  # fmt: skip
def test_what_lies_below_is_allowed(url: str) -> None:
    check_place(url, ALLOWED)


@pytest.mark.parametrize(
    "url",
    ["", "/etc", "file:///etc", "https://docs.acme.example/", "https://docs.acme.example/publications",
     "https://docs.acme.example/public/../private", "https://docs.acme.example/public/%2e%2e/private",
     "https://docs.acme.example/public//x", "https://docs.acme.example/public/..%5cx", "http://docs.acme.example/public",
     "https://docs.acme.example:8443/public", "https://ana@docs.acme.example/public",
     "https://docs.acme.example/public?x=1", "https://docs.acme.example/public#x",
     "https://docs.acme.example.evil.example/public", "https://evil.example/https://docs.acme.example/public",
     "zip::https://docs.acme.example/public", "s3://acme-docs/", "s3://acme-docs/shared2", "s3://acme-docs-2/shared",
     "simplecache::s3://acme-docs/shared", "https://[::1/public", "https://docs.acme.example:x/public"],
)  # fmt: skip
def test_what_does_not_is_refused(url: str) -> None:
    with pytest.raises(Invalid, match="CITADEL_SOURCE_URLS"):
        check_place(url, ALLOWED)
    with pytest.raises(Invalid):
        check_place(url, ())


@pytest.mark.parametrize(
    ("kind", "key"),
    [("files", "options"), ("files", "secrets"), ("website", "intranet"), ("website", "secrets"), ("git", "secrets"),
     ("folder", "posix"), ("files", "label_tag")],
)  # fmt: skip
def test_what_reaches_further_is_for_the_command_line(kind: str, key: str) -> None:
    with pytest.raises(Invalid, match="over the API"):
        check_settings(kind, {key: {}})
