"""API keys for tests: of every kind there is, issued at a gateway that may ask for them."""

from msgspec import Struct
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events.key import SCOPES


class Held(Struct, frozen=True):
    """Keys by what is to be known of them, `""` for none; and which scopes each has that holds."""

    keys: dict[str, str]
    scopes: dict[str, tuple[str, ...]]

    def expected(self, who: str, need: str) -> int:
        """The status that `who` gets for what takes `need`: 401, 403, or 0 for being let in."""
        if need == "open":
            return 0
        if who not in self.scopes:
            return 401
        scopes = self.scopes[who]
        return 0 if need in scopes or (need == "read" and "admin" in scopes) else 403


async def every_kind(gw: Gateway, host: Host) -> Held:
    """No key, no key at all, and keys that are unknown, expired, revoked, rotated out, or hold with some scope."""
    keys = {"none": "", "junk": "sk-junk", "unknown": "tl-" + "A" * 43}
    for name in ("expired", "revoked", "rotated-out"):
        soon = {"expires_in_s": 1e-6} if name == "expired" else {}
        keys[name] = (await gw.keys.issue(id=name, scopes=list(SCOPES), **soon))["key"]
    await gw.keys.revoke(id="revoked")
    await gw.keys.rotate(id="rotated-out")
    scopes: dict[str, tuple[str, ...]] = {scope: (scope,) for scope in SCOPES} | {"all": tuple(SCOPES)}
    for name, some in scopes.items():
        keys[name] = (await gw.keys.issue(id=f"with-{name}", scopes=list(some)))["key"]
    return Held(keys, scopes)
