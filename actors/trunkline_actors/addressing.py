"""What a provider's address and headers may be: no secret, since the log keeps both, and nothing a request breaks by.

Pure. What is said of a problem quotes neither an address nor a value, which may hold a key.
"""

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

SECRET_WORDS = ("authorization", "api-key", "apikey", "token", "cookie", "secret")
FRAMING = frozenset(
    {
        *("host", "content-length", "transfer-encoding", "content-encoding", "accept-encoding", "expect"),
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
    }
)
"""Headers that say how a message travels: of one connection, and so not a provider's to set. RFC 9110, 7.6.1."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: a token
_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?")  # RFC 9110, 5.5, of ASCII alone
_HOST = re.compile(r"[a-z0-9._-]+")


def base_url_problem(url: str) -> str | None:
    """Why a provider can't be called at this address; None where it can."""
    if not url.startswith(("http://", "https://")):
        return "base_url must start with http:// or https://"
    if not url.isprintable() or " " in url or "\\" in url:
        return "base_url must hold no space, backslash or control character"
    if "?" in url or "#" in url:
        return "base_url must end with the path; a key belongs into `secret`, and other parameters into no address"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return "base_url must name a host, and a port from 0 to 65535 if any: https://HOST[:PORT]/PATH"
    if "@" in parts.netloc:
        return "base_url must hold no user and no password, which the log would keep; use `secret`"
    return None if _is_host(host, "[" in parts.netloc) else "base_url must name a host: https://HOST[:PORT]/PATH"


def _is_host(host: str, bracketed: bool) -> bool:
    try:
        if bracketed:
            return ip_address(host.partition("%")[0]).version == 6
        return _HOST.fullmatch(host.encode("idna").decode("ascii").lower()) is not None
    except ValueError:  # a UnicodeError is one
        return False


def headers_problem(headers: Mapping[str, str]) -> str | None:
    """Why these headers can't go with each call to a provider; None where they can."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            return "the name of a header is letters, digits and any of !#$%&'*+-.^_`|~"
        if name.lower() in FRAMING:
            return f"header {name!r} says how a message travels, which is not for a provider to set; leave it out"
        if any(word in name.lower() for word in SECRET_WORDS):
            return f"header {name!r} would put a secret into the log; use `secret`"
        if not _VALUE.fullmatch(value):
            return f"the value of header {name!r} must be printable ASCII, without spaces around it"
    return None
