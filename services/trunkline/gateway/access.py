"""Who may do what over HTTP: decided on the matched route and the key, never on a URL or a `Host`."""

from collections.abc import Callable

from msgspec import Struct
from trunkline_actors.keys_door import Door
from trunkline_events.refusal import Refused

from trunkline.client import acts_for
from trunkline.gateway.http import Headers, HttpRequest
from trunkline.gateway.routes import Route


class Principal(Struct, frozen=True, kw_only=True):
    """Who asks. `key` is sent along on the bus, where it is checked again; `id` names it in logs; None: nobody.

    `models` are the models that the key may use, or patterns of them; empty: all.
    """

    key: str | None = None
    id: str | None = None
    models: tuple[str, ...] = ()


NOBODY = Principal()


class Access:
    """Admits requests with an API key that `door` knows. Without a door nobody is asked for one."""

    def __init__(self, door: Callable[[], Door] | None = None) -> None:
        self._door = door

    def admit(self, request: HttpRequest, route: Route) -> Principal | Refused:
        """Who asks, or why they may not. What is asked on the bus in this task is asked for them from then on."""
        if route.access == "open":
            return NOBODY
        text = key_of(request.headers)
        if self._door is None:
            return Principal(key=text or None)
        key = self._door().admit(text, route.access)
        if isinstance(key, Refused):
            return key
        acts_for.set(text)
        return Principal(key=text, id=key.id, models=tuple(key.models))


def key_of(given: Headers) -> str:
    """The API key of a request, as OpenAI's clients send it or as Anthropic's do; empty where there is none."""
    scheme, _, key = given.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and (key := key.strip()):
        return key
    return given.get("x-api-key", "").strip()
