"""The door of one process: who may come in with which API key, told from what the process knows, without any I/O."""

from collections.abc import Callable

import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from trunkline_events.connection import Connection
from trunkline_events.key import SCOPES, KeySecret
from trunkline_events.log import LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.subjects import KEYS_BUCKET
from trunkline_projections.keys import EMPTY, Key, Keys

from trunkline_actors import keys as rules
from trunkline_actors.bucket import open_bucket
from trunkline_actors.claims import key_id
from trunkline_actors.keys import MISSING, OURSELVES, UNKNOWN, Access

log = structlog.get_logger()

PEPPER = "pepper"
PEPPER_BYTES = 32
REMEMBERED = 4096
"""Keys whose hash is remembered, the one that was used least lately forgotten first."""

WE = Key(id=OURSELVES, name="the gateway itself", scopes=list(SCOPES), secrets=[], pepper="")
"""Whom processes of the gateway act as: with the key that only who can read the pepper can make."""
NOBODY = "-"
NO_PEPPER = Refused(
    code="unavailable",
    message="API keys can't be checked right now, since the log did not answer; try again in a moment",
)
ANOTHER_PEPPER = Refused(
    code="unavailable",
    retryable=False,
    message=f"this API key can't be checked: what keys were hashed under is lost. Restore the bucket {KEYS_BUCKET}, or "
    "revoke the keys issued before and issue others",
)


class Door:
    """Admits by the keys that `keys` gives. `required`: a request on the bus must come with one."""

    def __init__(self, keys: Callable[[], Keys], clock: Callable[[], float]) -> None:
        self.required = False
        self._keys = keys
        self._clock = clock
        self._pepper: bytes | None = None
        self._own = ""
        self._known: dict[str, tuple[Key, KeySecret]] = {}
        self._of: Keys = EMPTY

    @property
    def pepper(self) -> bytes | None:
        """What keys are hashed under, where it could be read."""
        return self._pepper

    def use(self, pepper: bytes) -> None:
        """Hash keys under this pepper from now on."""
        self._pepper, self._own = pepper, rules.own_key(pepper)
        self._known.clear()

    @property
    def own_key(self) -> str:
        """The key of the gateway's own processes; empty without a pepper."""
        return self._own

    async def open(self, connection: Connection, draw: Callable[[int], bytes], replicas: int = 1) -> None:
        """Read the pepper, or make one where there is none. Raises LogUnavailable."""
        self.use(await pepper_of(connection, draw, replicas))

    def admit(self, text: str, need: Access) -> Key | Refused:
        """The key that this is, where it may do what takes `need`; else why not."""
        if not text:
            return MISSING
        found = self._find(text)
        if isinstance(found, Refused):
            return found
        key, secret = found
        return rules.ended(key, secret, self._clock()) or rules.forbidden(key, need) or key

    def on_bus(self, text: str | None, need: Access) -> Key | Refused | None:
        """As `admit`, for who asks on the bus. Where no key is required, None for none, and for one of somebody else's.

        A key of ours that was revoked, has expired or lacks the scope is refused in any case.
        """
        if text and self._own and rules.same(text, self._own):
            return WE
        if not text:
            return MISSING if self.required else None
        admitted = self.admit(text, need)
        if not self.required and (admitted is UNKNOWN or admitted is NO_PEPPER or admitted is ANOTHER_PEPPER):
            return None
        return admitted

    def for_whom(self, text: str | None, behalf: str | None, need: Access) -> Key | Refused | None:
        """As `on_bus`; but the gateway itself may ask on behalf of a key, which must hold, or of nobody (`-`)."""
        admitted = self.on_bus(text, need)
        return self._on_behalf(behalf) if behalf and admitted is WE else admitted

    def fingerprint(self, text: str) -> str:
        """What a key that is none of ours goes by; nothing for our own, which then stands for nobody."""
        return "" if self._own and rules.same(text, self._own) else key_id(text)

    def _on_behalf(self, name: str) -> Key | Refused | None:
        if name == NOBODY:
            return None
        key = self.of_id(name)
        if key is None:  # a fingerprint of somebody else's
            return Key(id=name, name="", scopes=["chat"], secrets=[], pepper="")
        return rules.ended(key, KeySecret(digest=""), self._clock()) or key

    def who(self, text: str | None) -> str:
        """What whoever shows this goes by in events: our key's id, a fingerprint of any other, or nothing."""
        admitted = self.on_bus(text, "open")
        return admitted.id if isinstance(admitted, Key) else key_id(text or "")

    def of_id(self, name: str) -> Key | None:
        """The key of this id, where one was issued."""
        return self._keys().by_id.get(name)

    def _find(self, text: str) -> tuple[Key, KeySecret] | Refused:
        keys = self._keys()
        if keys is not self._of:
            self._known.clear()
            self._of = keys
        known = self._known.pop(text, None)
        if known is None:
            if self._pepper is None:
                return NO_PEPPER
            known = rules.find(keys, rules.digest_of(self._pepper, text)) if rules.is_key(text) else None
            if known is None:
                return ANOTHER_PEPPER if rules.is_key(text) and self._lost(keys) else UNKNOWN
            if len(self._known) >= REMEMBERED:
                del self._known[next(iter(self._known))]
        self._known[text] = known
        return known

    def _lost(self, keys: Keys) -> bool:
        """Whether a key that should hold was hashed under a pepper that is not ours."""
        assert self._pepper is not None
        ours = rules.name_of(self._pepper)
        return any(key.pepper != ours and not key.revoked for key in keys.by_id.values())


async def pepper_of(connection: Connection, draw: Callable[[int], bytes] | None, replicas: int = 1) -> bytes:
    """The pepper of the gateway on this bus; without `draw` none is made. Raises LogUnavailable."""
    js = connection.nats.jetstream(timeout=5)
    try:
        if draw is None:
            bucket = await js.key_value(KEYS_BUCKET)
        else:
            config = api.KeyValueConfig(bucket=KEYS_BUCKET, history=1, replicas=replicas)
            bucket = await open_bucket(js, config)
        try:
            return (await bucket.get(PEPPER)).value or b""
        except nats.js.errors.KeyNotFoundError:
            if draw is None:
                raise
        made = draw(PEPPER_BYTES)
        try:
            await bucket.create(PEPPER, made)
        except nats.js.errors.KeyWrongLastSequenceError:  # another process was quicker
            return (await bucket.get(PEPPER)).value or b""
        log.info("keys.pepper_made")
        return made
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        raise LogUnavailable("what API keys are hashed under could not be read") from error
