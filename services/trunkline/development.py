"""The first API key of a gateway, and whether it may be reached from elsewhere."""

import ipaddress
from urllib.parse import urlsplit

import structlog
from trunkline_actors.keys import DEVELOPMENT
from trunkline_events.key import SCOPES
from trunkline_projections.keys import Keys

from trunkline.client import Gateway
from trunkline.errors import TrunklineError

log = structlog.get_logger()


async def development_key(gateway: Gateway) -> str:
    """What the banner says of the key for development: itself where this is the first start, which makes it."""
    try:
        issued = await gateway.keys.issue(
            id=DEVELOPMENT, name="made by trunkline up", scopes=list(SCOPES), reason="first start"
        )
    except TrunklineError as error:
        if error.code == "conflict":
            return (
                f"shown at the first start; another: `trunkline keys rotate {DEVELOPMENT}`, or `trunkline keys issue`"
            )
        log.warning("keys.none_for_development", kind=error.code)
        return "none could be made now; later: `trunkline keys issue`"
    return f"{issued['key']} (shown this once; keep it in TRUNKLINE_KEY)"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens here."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def asks_for_keys(require: bool | None, nats: str) -> bool:
    """Whether the bus asks for keys: as it is set, else where it is not on this machine."""
    return require if require is not None else not all(map(_is_here, nats.split(",")))


def _is_here(server: str) -> bool:
    return is_loopback(urlsplit(server if "//" in server else f"nats://{server}").hostname or "")


def binding_problem(host: str, require: bool | None, keys: Keys) -> str | None:
    """Why HTTP must not be served here; None where it may."""
    if is_loopback(host):
        return None
    reached = f"HTTP on {host} can be reached from other machines, and"
    if require is False:
        return f"{reached} --no-require-keys leaves the bus open; leave that out, or serve on 127.0.0.1"
    if all(key.revoked for key in keys.by_id.values()):
        return (
            f"{reached} no API key was issued yet; start it on 127.0.0.1 first, which makes one, or issue one with "
            "`trunkline keys issue`"
        )
    return None
