"""A website: what is followed, what is asked of it, and that nothing private is reached through it."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import BodyTooLarge, Invalid, SourceUnavailable
from core.records import Labels, Source
from ingest.source import Listed, NoMemory
from ingest.sources.web import Answer, Web, is_public
from ingest.sources.website import WebsiteSource
from tests.stages import Pages, serving


@dataclass(slots=True)
class Kept:
    """What a refresh would have kept of the last crawl."""

    prints: dict[str, str | None] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)

    def fingerprint(self, external_id: str) -> str | None:
        return self.prints.get(external_id)

    def content(self, external_id: str) -> bytes | None:
        return self.bodies.get(external_id)


@pytest.fixture
def web() -> Iterator[Pages]:
    with ExitStack() as stack:
        yield Pages(stack)


def site(web: Pages, scratch: Path, memory: Any = None, fetcher: Web | None = None, **config: Any) -> WebsiteSource:
    settings = {"url": f"{web.url}/docs/", "intranet": [web.host], "delay_s": 0, **config}
    scratch = scratch / uuid4().hex
    scratch.mkdir()
    source = Source(uuid4(), uuid4(), "site", "website", settings, Labels(("public",)), None, 0.3, None)
    return WebsiteSource(source, memory or NoMemory(), scratch, fetcher)


def crawl(source: WebsiteSource) -> tuple[dict[str, Listed], bool, list[str]]:
    """Items by path, whether that was all, and what was wrong."""
    pages = list(source.enumerate())
    found = {item.external_id.split("/", 3)[3]: item for page in pages for item in page.items}
    return found, pages[-1].complete, [problem for page in pages for problem in page.problems]


def test_links_below_the_start_are_followed_and_no_others(web: Pages, tmp_path: Path) -> None:
    web.index("/docs/", ["a", "b/c?x=1", "/docs/b/c#part", "../private", "http://elsewhere.example/docs/", "mailto:a@b",
                         "a.png", "http://[bad"])  # fmt: skip
    web.index("/docs/a", ["/docs/", "sub/d"])
    web.put("/docs/b/c", "<p>the text of c</p>")
    web.put("/docs/sub/d", b"%PDF-", "application/pdf")
    web.put("/docs/a.png", b"PNG", "image/png")
    web.index("/private", ["/docs/secret"])
    found, complete, problems = crawl(site(web, tmp_path))
    assert (set(found), complete, problems) == ({"docs/", "docs/a", "docs/b/c", "docs/sub/d"}, True, [])
    assert "/private" not in {path for path, _ in web.asked}
    assert found["docs/sub/d"].note == "application/pdf"


@pytest.mark.parametrize("start", ["/docs", "/docs?lang=en"])
def test_an_address_without_a_slash_at_its_end_is_not_its_parent(web: Pages, tmp_path: Path, start: str) -> None:
    web.index("/docs", ["/docs/a", "/docs-of-others/b", "/private", "/", "/docs"])
    web.pages[start] = web.pages["/docs"]
    for path in ("/docs/a", "/docs-of-others/b", "/private", "/"):
        web.put(path, "<p>text</p>")
    found, complete, _ = crawl(site(web, tmp_path, url=f"{web.url}{start}"))
    assert (set(found), complete) == ({start[1:], "docs", "docs/a"}, True)
    assert {path for path, _ in web.asked} == {start, "/docs", "/docs/a", "/robots.txt", "/sitemap.xml"}


def test_an_address_that_leads_to_its_folder_is_that_folder(web: Pages, tmp_path: Path) -> None:
    web.moved["/docs"] = "/docs/"
    web.index("/docs/", ["a", "../private"])
    web.put("/docs/a", "<p>text</p>")
    found, complete, _ = crawl(site(web, tmp_path, url=f"{web.url}/docs"))
    assert (set(found), complete) == ({"docs/", "docs/a"}, True)


def test_robots_txt_is_obeyed(web: Pages, tmp_path: Path) -> None:
    """RFC 9309: the longest match decides, `*` and `$` count, and a group of our own goes before `*`."""
    ours = "User-agent: citadel\nDisallow: /docs/secret\nAllow: /docs/secret/open\nDisallow: /*.pdf$\n\n"
    web.put("/robots.txt", f"{ours}User-agent: *\nDisallow: /", "text/plain")
    web.index("/docs/", ["secret", "secret/open", "x.pdf", "a"])
    for path in ("/docs/secret", "/docs/secret/open", "/docs/x.pdf", "/docs/a"):
        web.put(path, "<p>text</p>")
    found, complete, _ = crawl(site(web, tmp_path))
    assert (set(found), complete) == ({"docs/", "docs/secret/open", "docs/a"}, True)
    web.status["/robots.txt"] = 503
    with pytest.raises(SourceUnavailable, match="nothing may be asked"):
        crawl(site(web, tmp_path))


def test_a_page_that_asks_not_to_be_indexed_is_not(web: Pages, tmp_path: Path) -> None:
    web.index("/docs/", ["hidden", "alone"])
    web.put("/docs/hidden", '<meta name="ROBOTS" content="NoIndex"><a href="beyond">x</a>')
    web.put("/docs/alone", '<meta name="robots" content="nofollow"><a href="unfollowed">x</a>')
    web.put("/docs/beyond", "<p>x</p>")
    web.put("/docs/unfollowed", "<p>x</p>")
    assert set(crawl(site(web, tmp_path))[0]) == {"docs/", "docs/alone", "docs/beyond"}


def test_what_did_not_change_is_asked_for_conditionally_and_its_links_are_still_known(
    web: Pages, tmp_path: Path
) -> None:
    web.index("/docs/", ["a"])
    web.index("/docs/a", ["b"])
    web.put("/docs/b", "<p>the text of b</p>")
    first = site(web, tmp_path)
    found, _, _ = crawl(first)
    memory = Kept()
    for item in found.values():
        memory.prints[item.external_id] = item.fingerprint
        memory.bodies[item.external_id] = first.fetch(item, Labels()).content
    web.asked.clear()
    again, complete, _ = crawl(site(web, tmp_path, memory))
    assert again == found and complete
    assert {path: status for path, status in web.asked if path.startswith("/docs")} == {
        "/docs/": 304, "/docs/a": 304, "/docs/b": 304}  # fmt: skip
    web.put("/docs/b", "<p>other text</p>")
    changed, _, _ = crawl(site(web, tmp_path, memory))
    assert changed["docs/a"] == found["docs/a"] and changed["docs/b"].fingerprint != found["docs/b"].fingerprint


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_page_that_does_not_answer_makes_the_listing_incomplete(web: Pages, tmp_path: Path, status: int) -> None:
    web.index("/docs/", ["a", "b"])
    web.put("/docs/a", "<p>text</p>")
    web.status["/docs/b"] = status
    found, complete, problems = crawl(site(web, tmp_path))
    assert (set(found), complete) == ({"docs/", "docs/a"}, False) and f"status {status}" in problems[0]
    web.status["/docs/b"] = 404
    assert crawl(site(web, tmp_path))[1]


def test_caps_end_a_crawl_and_make_it_incomplete(web: Pages, tmp_path: Path) -> None:
    web.index("/docs/", [f"p{n}" for n in range(9)])
    for n in range(9):
        web.put(f"/docs/p{n}", "<p>text</p>")
    found, complete, problems = crawl(site(web, tmp_path, max_pages=4))
    assert (len(found), complete) == (4, False) and "max_pages" in problems[0]
    web.put("/docs/p3", "x" * 5000)
    _, complete, problems = crawl(site(web, tmp_path, max_bytes=4000))
    assert not complete and "4000 bytes" in problems[0]


def test_sitemaps_are_read_within_the_site_and_entities_are_not(web: Pages, tmp_path: Path) -> None:
    web.put("/robots.txt", f"Sitemap: {web.url}/index.xml", "text/plain")
    web.put("/docs/", "<p>text</p>")
    web.put("/index.xml", f"<sitemapindex><sitemap><loc>{web.url}/one.xml</loc></sitemap></sitemapindex>")
    web.put("/one.xml", f'<!DOCTYPE u [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
            f"<urlset><url><loc>{web.url}/docs/a</loc></url><url><loc>{web.url}/other</loc></url>"
            f"<url><loc>{web.url}/docs/&x;</loc></url></urlset>")  # fmt: skip
    web.put("/docs/a", "text", "text/plain")
    found, _, _ = crawl(site(web, tmp_path, links=False))
    assert set(found) <= {"docs/a", "docs/"} and "docs/a" in found and not [p for p, _ in web.asked if "root:" in p]


def test_a_redirect_within_the_site_is_one_page_and_one_out_of_it_none(web: Pages, tmp_path: Path) -> None:
    web.index("/docs/", ["old", "out"])
    web.moved |= {"/docs/old": "/docs/new", "/docs/out": "/elsewhere"}
    web.put("/docs/new", "<p>text</p>")
    web.put("/elsewhere", "<p>text</p>")
    found, complete, _ = crawl(site(web, tmp_path))
    assert (set(found), complete) == ({"docs/", "docs/new"}, True)


# --- nothing private ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "::1", "::",
     "fe80::1%eth0", "fc00::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
     "2002:7f00:1::", "2001:0:4136:e378::1", "224.0.0.1", "ff02::1", "255.255.255.255", "192.0.2.1", "198.18.0.1"],
)  # fmt: skip
def test_an_address_that_is_not_of_the_public_net_is_known(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


@pytest.fixture
def private() -> Iterator[tuple[int, list[Any]]]:
    """A port on the loopback, with whoever connected to it."""
    connected: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def setup(self) -> None:
            connected.append(self.client_address)
            super().setup()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield server.server_port, connected


def test_a_name_that_resolves_to_another_address_each_time_reaches_nothing_private(
    private: tuple[int, list[Any]],
) -> None:
    """DNS rebinding: public when it is checked, private when a client would resolve it again to connect."""
    port, connected = private
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) % 2 else ["127.0.0.1"]

    dialled: list[tuple[str, int]] = []
    real = socket.create_connection

    def dial(address: tuple[str, int], *rest: Any, **more: Any) -> socket.socket:
        dialled.append(address)
        if not address[0].startswith("127."):
            raise ConnectionRefusedError("no net in a test")
        return real(address, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.create_connection", dial)
        for _ in range(20):
            with pytest.raises((SourceUnavailable, Invalid)):
                Web(resolve=rebinding).get(f"http://rebinding.example:{port}/", {}, 1000)
    assert len(asked) == 20, "each request resolves its name once"
    assert set(dialled) == {("93.184.216.34", port)} and connected == []


def test_one_private_address_among_public_ones_is_refused(private: tuple[int, list[Any]]) -> None:
    port, connected = private
    mixed = Web(resolve=lambda host, port: ["93.184.216.34", "127.0.0.1"])
    with pytest.raises(Invalid, match="not on the public net"):
        mixed.get(f"http://mixed.example:{port}/", {}, 1000)
    assert connected == []


@pytest.mark.parametrize("target", ["http://127.0.0.1:{port}/", "http://localhost:{port}/x", "http://[::1]:{port}/",
                                    "http://[::ffff:127.0.0.1]:{port}/", "http://2130706433:{port}/",
                                    "http://0x7f.1:{port}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/",
                                    "//127.0.0.1:{port}/"])  # fmt: skip
def test_no_redirect_leads_to_what_is_private(web: Pages, private: tuple[int, list[Any]], target: str) -> None:
    port, connected = private
    web.moved["/"] = target.format(port=port)
    with pytest.raises((Invalid, SourceUnavailable)):
        Web((web.host,)).get(f"{web.url}/", {}, 1000)
    assert connected == []


def test_a_redirect_to_another_host_does_not_carry_the_credential(web: Pages) -> None:
    with ExitStack() as stack:
        other = Pages(stack)
        seen: list[dict[str, str]] = []
        answer = other.answer
        other.answer = lambda path, headers: (seen.append(headers), answer(path, headers))[1]  # type: ignore[method-assign]
        other.put("/x", "text")
        web.moved["/"] = f"{other.url}/x"
        Web((web.host, other.host)).get(f"{web.url}/", {"Authorization": "Bearer abc"}, 1000)
        assert len(seen) == 1 and "Authorization" not in seen[0]


def test_a_redirect_out_of_tls_does_not_carry_the_credential() -> None:
    asked: list[tuple[str, str | None]] = []

    class Scripted(Web):
        def _once(self, url: str, headers: Mapping[str, str], max_bytes: int) -> Answer:
            asked.append((url, headers.get("Authorization")))
            moved = {"location": "http://a.example/x"} if url.startswith("https") else {}
            return Answer(url, 302 if moved else 200, moved, b"")

    Scripted().get("https://a.example/", {"Authorization": "Bearer abc"}, 1000)
    assert asked == [("https://a.example/", "Bearer abc"), ("http://a.example/x", None)]


def test_a_redirect_that_goes_on_and_on_and_an_answer_without_end_are_given_up(web: Pages) -> None:
    web.moved["/"] = "/"
    with pytest.raises(SourceUnavailable, match="redirects"):
        Web((web.host,)).get(f"{web.url}/", {}, 1000)
    web.put("/large", "x" * 2000)
    with pytest.raises(BodyTooLarge):
        Web((web.host,)).get(f"{web.url}/large", {}, 1000)
