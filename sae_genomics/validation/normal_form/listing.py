"""The Parquet parts of a directory that a server shows as a page of links."""

from __future__ import annotations

from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

from sae_genomics.errors import UserError
from sae_genomics.validation.normal_form.service import Service

_ENDING = ".parquet"


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attributes if tag == "a" and name == "href" and value]


def parts_of(service: Service, url: str) -> dict[str, str]:
    """File name -> address of every part that is listed directly below `url`. Raises UserError where there is none."""
    base = url.rstrip("/") + "/"
    page = _Links()
    page.feed(service.read_text(base))
    parts = {}
    for link in page.links:
        address = urljoin(base, link)
        name = unquote(urlsplit(address).path).rpartition("/")[2]
        # Only what lies in the directory itself, on the same server: a listing has other links too.
        if name.endswith(_ENDING) and address == urljoin(base, link.rpartition("/")[2]):
            parts[name] = address
    if not parts:
        raise UserError(
            f"{service.name}: {base} lists no {_ENDING} file; has the address changed? see configs/databases.yaml"
        )
    return dict(sorted(parts.items()))
