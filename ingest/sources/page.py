"""What a web page links to, and what a sitemap names (sitemaps.org 0.9)."""

import gzip
import io
from dataclasses import dataclass
from urllib.parse import urljoin

from lxml import etree, html  # type: ignore[import-untyped]

from core.errors import BodyTooLarge, Invalid

MAX_LINKS = 10_000  # of a page


@dataclass(frozen=True, slots=True)
class PageLinks:
    """What a page leads to."""

    links: tuple[str, ...]
    hidden: bool  # it asks not to be indexed


@dataclass(frozen=True, slots=True)
class Locations:
    """What a sitemap names."""

    pages: tuple[str, ...]
    sitemaps: tuple[str, ...]


def links_of(body: bytes, url: str) -> PageLinks:
    """The links of a page, absolute, as its `robots` meta element allows; none of what cannot be read."""
    try:
        root = html.document_fromstring(body, base_url=url)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        return PageLinks((), False)
    told = ",".join(root.xpath("//meta[translate(@name,'ROBTS','robts')='robots']/@content")).lower()
    base = urljoin(url, next(iter(root.xpath("//base/@href")), ""))
    links = [] if "nofollow" in told or "none" in told else root.xpath("//a/@href")[:MAX_LINKS]
    return PageLinks(tuple(_joined(base, links)), "noindex" in told or "none" in told)


def locations_of(body: bytes, url: str, max_bytes: int) -> Locations:
    """The addresses in a sitemap or an index of sitemaps. Raises Invalid for what is neither."""
    try:
        if body[:2] == b"\x1f\x8b":
            body = gzip.GzipFile(fileobj=io.BytesIO(body)).read(max_bytes + 1)
            if len(body) > max_bytes:
                raise BodyTooLarge(f"the sitemap is larger than {max_bytes} bytes")
        parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, OSError, EOFError) as error:
        raise Invalid(f"it is no sitemap: {error}") from error
    kind = etree.QName(root).localname
    if kind not in ("urlset", "sitemapindex"):
        raise Invalid("it is no sitemap")
    found = tuple(_joined(url, root.xpath("/*/*/*[local-name()='loc']/text()")))
    return Locations(found, ()) if kind == "urlset" else Locations((), found)


def _joined(base: str, links: list[str]) -> list[str]:
    joined = []
    for link in links:
        try:
            joined.append(urljoin(base, str(link).strip()))
        except ValueError:  # no address at all
            continue
    return joined
