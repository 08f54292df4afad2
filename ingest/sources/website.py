"""A website: the pages that its sitemaps name and its links lead to, below one address, as robots.txt allows."""

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import urljoin, urlsplit, urlunsplit

from protego import Protego

from core.errors import BodyTooLarge, Invalid, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.source import Listed, Memory, Page
from ingest.sources.config import Secrets, check_url, checked
from ingest.sources.page import links_of, locations_of
from ingest.sources.web import AGENT, Answer, Web

MAX_PAGES = 2000
MAX_PAGE_BYTES = 20 * 2**20
MAX_SITEMAPS = 50
MAX_DELAY_S = 30.0
DELAY_S = 0.2  # between two requests
PAGE = 20  # items: each was a request
SKIPPED = ("image/", "video/", "audio/", "font/", "text/css", "text/javascript", "application/javascript")
HTML = ("text/html", "application/xhtml+xml")


@dataclass(slots=True)
class _Crawl:
    """How far a crawl is."""

    todo: deque[str] = field(default_factory=deque)
    known: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)  # with one, nobody knows what is gone

    def add(self, url: str) -> None:
        if url not in self.known:
            self.known.add(url)
            self.todo.append(url)


class WebsiteSource:
    """A page's own address is its external id. What was fetched is kept in `scratch` until it is handed over."""

    def __init__(self, source: Source, memory: Memory, scratch: Path, web: Web | None = None) -> None:
        """Asks nothing yet. Raises Invalid."""
        config = checked(source, ["url"], {"max_pages": int, "max_bytes": int, "delay_s": float, "queries": bool,
                                           "links": bool, "intranet": list, "secrets": dict})  # fmt: skip
        self._start = normal(check_url(config["url"]))
        self._secrets = Secrets(config)
        self._source, self._memory, self._scratch = source, memory, scratch
        self._web = web or Web(tuple(str(host) for host in config.get("intranet") or ()))
        self._max_pages: int = config.get("max_pages") or MAX_PAGES
        self._max_bytes: int = config.get("max_bytes") or MAX_PAGE_BYTES
        self._delay_s: float = config.get("delay_s", DELAY_S)
        self._queries: bool = config.get("queries", False)  # whether links with a query are followed
        self._links: bool = config.get("links", True)  # or the sitemaps' pages alone
        self._below = _bare(self._start).rstrip("/") + "/"
        self._asked_at = 0.0

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every page. Raises SourceUnavailable when robots.txt or the first page does not answer."""
        robots = self._robots()
        crawl = _Crawl()
        if self._links:
            crawl.add(self._start)
        for url in self._in_sitemaps(robots, crawl):
            crawl.add(url)
        listed: list[Listed] = []
        for _ in range(self._max_pages):
            if not crawl.todo:
                break
            url = crawl.todo.popleft()
            if robots.can_fetch(url, AGENT) and (item := self._visit(url, crawl)) is not None:
                listed.append(item)
            if len(listed) >= PAGE:
                yield Page(tuple(listed))
                listed = []
        if crawl.todo:
            crawl.problems.append(f"the site has more than {self._max_pages} pages, the source's `max_pages`")
        yield Page(tuple(listed), problems=tuple(crawl.problems), complete=not crawl.problems)

    def permissions(self, item: Listed) -> Labels:
        """The source's own: a site says nothing of who may read it."""
        return self._source.labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The page. Raises SourceUnavailable, Invalid."""
        kept = self._kept(item.external_id)
        content = kept.read_bytes() if kept.is_file() else self._again(item.external_id)
        return Submission(
            external_id=item.external_id,
            content=content,
            labels=labels,
            source=self._source.name,
            mime_type=item.note or None,
            filename=PurePosixPath(urlsplit(item.external_id).path).name or "index.html",
            uri=item.external_id,
        )

    def _again(self, url: str) -> bytes:
        answer = self._ask(url)
        if answer.status != 200:
            error = FileNotFoundError if answer.status in (403, 404, 410) else SourceUnavailable
            raise error(f"status {answer.status}")
        return answer.body

    def _visit(self, url: str, crawl: _Crawl) -> Listed | None:
        """The page as an item, its links noted; None for what is no document, or not there."""
        before = self._memory.fingerprint(url)
        try:
            answer = self._ask(url, before)
        except (SourceUnavailable, BodyTooLarge) as error:
            self._missed(url, str(error), crawl)
            return None
        except Invalid:  # a redirect that leads where nothing may be asked
            return None
        mime_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not self._within(normal(answer.url)) or mime_type.startswith(SKIPPED):
            if url == self._start:
                raise SourceUnavailable(f"{url} leads to {answer.url[:200]}, {mime_type}: no page of this site")
            return None
        if answer.status == 304 and before is not None:
            mime_type = json.loads(before)[3]
            return self._page(url, answer.url, self._memory.content(url) or b"", Listed(url, before, mime_type), crawl)
        if answer.status == 200:
            self._kept(url).write_bytes(answer.body)
            return self._page(url, answer.url, answer.body, Listed(url, _sign(answer, mime_type), mime_type), crawl)
        if answer.status >= 500 or answer.status in (408, 429) or url == self._start:
            self._missed(url, f"status {answer.status}", crawl)
        return None

    def _missed(self, url: str, why: str, crawl: _Crawl) -> None:
        if url == self._start:
            raise SourceUnavailable(f"{url}: {why}")
        crawl.problems.append(f"{url}: {why}")

    def _page(self, url: str, final: str, body: bytes, item: Listed, crawl: _Crawl) -> Listed | None:
        found = links_of(body, final) if item.note in HTML else None
        if found is not None and self._links:
            for link in found.links:
                self._follow(link, crawl)
        if normal(final) != url:  # the page is the other address's
            crawl.add(normal(final))
            return None
        return None if found is not None and found.hidden else item

    def _follow(self, link: str, crawl: _Crawl) -> None:
        try:
            url = normal(link)
        except ValueError:
            return
        if self._within(url) and (self._queries or not urlsplit(url).query):
            crawl.add(url)

    def _within(self, url: str) -> bool:
        return f"{_bare(url)}/".startswith(self._below)

    def _robots(self) -> Protego:
        """RFC 9309: what is not there forbids nothing, and what cannot be asked forbids all."""
        answer = self._ask(urljoin(self._start, "/robots.txt"))
        if answer.status == 429 or answer.status >= 500:
            raise SourceUnavailable(f"{answer.url}: status {answer.status}, so nothing may be asked")
        robots = Protego.parse(answer.body.decode("utf-8", "replace") if answer.status == 200 else "")
        if (delay := robots.crawl_delay(AGENT)) is not None:
            self._delay_s = min(MAX_DELAY_S, max(self._delay_s, float(delay)))
        return robots

    def _in_sitemaps(self, robots: Protego, crawl: _Crawl) -> Iterator[str]:
        todo = deque([*robots.sitemaps] or [urljoin(self._start, "/sitemap.xml")])
        told = bool([*robots.sitemaps])
        for _ in range(MAX_SITEMAPS):
            if not todo:
                return
            url = todo.popleft()
            try:
                answer = self._ask(url)
                found = locations_of(answer.body, url, self._max_bytes) if answer.status == 200 else None
            except (SourceUnavailable, Invalid) as error:
                crawl.problems.append(f"{url}: {error}")
                continue
            if found is None:
                if told or answer.status >= 500:
                    crawl.problems.append(f"{url}: status {answer.status}, and it should be a sitemap")
                continue
            todo.extend(found.sitemaps)
            yield from (page for page in map(normal, found.pages) if self._within(page))
        if todo:
            crawl.problems.append(f"the site has more than {MAX_SITEMAPS} sitemaps")

    def _ask(self, url: str, before: str | None = None) -> Answer:
        time.sleep(max(0.0, self._asked_at + self._delay_s - time.monotonic()))
        headers: dict[str, str] = {}
        if before is not None and self._memory.content(url) is not None:
            etag, modified, *_ = json.loads(before)
            headers |= {"If-None-Match": etag} if etag else {}
            headers |= {"If-Modified-Since": modified} if modified else {}
        if urlsplit(url)[:2] == urlsplit(self._start)[:2] and (credential := self._secrets.get("authorization")):
            headers["Authorization"] = credential
        answer = self._web.get(url, headers, self._max_bytes)
        self._asked_at = time.monotonic()
        return answer

    def _kept(self, url: str) -> Path:
        return self._scratch / hashlib.sha256(url.encode()).hexdigest()


def normal(url: str) -> str:
    """One spelling of an address: without fragment, default port and capitals in the host. Raises ValueError."""
    parts = urlsplit(url.strip())
    host, port = (parts.hostname or "").lower(), parts.port
    host = f"[{host}]" if ":" in host else host
    netloc = host if port in (None, {"http": 80, "https": 443}.get(parts.scheme)) else f"{host}:{port}"
    return urlunsplit((parts.scheme.lower(), netloc, parts.path or "/", parts.query, ""))


def _bare(url: str) -> str:
    return urlunsplit((*urlsplit(url)[:3], "", ""))


def _sign(answer: Answer, mime_type: str) -> str:
    digest = hashlib.sha256(answer.body).hexdigest()
    return json.dumps([answer.headers.get("etag"), answer.headers.get("last-modified"), digest, mime_type])
