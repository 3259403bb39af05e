"""The address of a model on a server: `http://host/v1#model`."""

import os
import re
from urllib.parse import urlsplit


def is_address(source: str | os.PathLike) -> bool:
    """Return whether a model is named by the address of a server."""
    return isinstance(source, str) and source.startswith(("http://", "https://"))


def parse_address(address: str) -> tuple[str, str]:
    """Return the address of the API, without a slash at its end, and the name of the model.

    Raises:
        ValueError: the address is not of the form `http://host/v1#model`.
    """
    try:
        url = urlsplit(address)
        is_usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        # Other characters than ASCII must be written as %XX; the name of a model may have any.
        location = url.netloc + url.path
        is_usable = is_usable and address.isprintable() and location.isascii() and " " not in location
        (url.hostname or "").encode("idna")  # as connecting does; it raises for 127.0.0..1
    except ValueError:  # of a port that is no number, or a host that is neither a name nor an address of IPv6
        is_usable = False
    if not is_usable:
        # Not the address as it is: it may hold a password before an @ or a key behind a ?.
        shown_address = re.sub("//[^#]*@", "//", address).partition("?")[0]
        raise ValueError(f"{shown_address!r} is not an address of a model: write http://host:8000/v1#MODEL")
    if "@" in url.netloc or url.query:
        raise ValueError(f"{url.scheme}://{url.hostname}: no password and no ? in the address of a model; a token is "
                         "taken from OPENAI_API_KEY")  # fmt: skip
    if not url.fragment:
        raise ValueError(f"{address}: which model of this server? Write {address.rstrip('#')}#MODEL")
    return f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}", url.fragment
