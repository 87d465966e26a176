"""Who may do what over HTTP: decided on the matched route and the key, never on a URL or a `Host`."""

from msgspec import Struct
from trunkline_events.refusal import Refused

from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route


class Principal(Struct, frozen=True, kw_only=True):
    """Who asks. `key` is sent along on the bus, where it is checked again; `id` names it in logs; None: nobody."""

    key: str | None = None
    id: str | None = None


NOBODY = Principal()


class Access:
    """Admits requests."""

    def admit(self, request: HttpRequest, route: Route) -> Principal | Refused:
        """Who asks, or why they may not."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        return Principal(key=key.strip() or None) if scheme.lower() == "bearer" else NOBODY
