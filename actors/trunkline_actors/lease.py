"""Leadership: whoever writes a key first leads, as long as it goes on writing it. JetStream KV compares and expires."""

import asyncio

import nats.errors
import nats.js.errors
import structlog
from nats.js import api
from nats.js.kv import KeyValue
from trunkline_events.subjects import LEASES_BUCKET
from trunkline_events.tasks import end_task

from trunkline_actors.bucket import open_bucket
from trunkline_actors.runtime import Runtime

log = structlog.get_logger()

TTL = 1.5
"""Seconds a lease lasts without being renewed: a successor leads within two."""
RENEW = 0.4

_TROUBLE = (nats.errors.Error, nats.js.errors.Error, TimeoutError)


class Lease:
    """One role that one process holds at a time. `held` turns false before anybody else's can turn true."""

    def __init__(self, runtime: Runtime, role: str) -> None:
        self._runtime = runtime
        self._role = role
        self._bucket: KeyValue | None = None
        self._revision = 0
        self._until = 0.0
        self._not_before = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def held(self) -> bool:
        """Whether we lead, to the best of our knowledge, right now."""
        return asyncio.get_running_loop().time() < self._until

    async def start(self) -> None:
        """Try to lead, from now on."""
        self._bucket = await self._open()
        await self._try()
        self._task = asyncio.create_task(self._go_on())

    async def _open(self) -> KeyValue:
        js = self._runtime.bus.nats.jetstream(timeout=1.0)
        # Renewing adds a message; the last one of the key is what counts, and it goes when the holder does.
        config = api.KeyValueConfig(
            bucket=LEASES_BUCKET,
            history=1,
            ttl=TTL,
            storage=api.StorageType.MEMORY,
            replicas=self._runtime.replicas,  # or leadership would die with one server
        )
        return await open_bucket(js, config)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(RENEW)
            await self._try()

    async def _try(self) -> None:
        asked = asyncio.get_running_loop().time()
        if asked < self._not_before:
            return
        name = self._runtime.name.encode()
        leading = self.held
        try:
            self._bucket = self._bucket or await self._open()
            if self._revision:
                self._revision = await self._bucket.update(self._role, name, last=self._revision)
            else:
                self._revision = await self._bucket.create(self._role, name)
        except nats.js.errors.KeyWrongLastSequenceError:
            self._revision = 0
            self._until = 0.0
        except nats.js.errors.NoStreamResponseError:
            # The bucket is in memory, so it went with the server. Who led may not know yet that it no longer does.
            self._bucket, self._revision = None, 0
            self._until, self._not_before = 0.0, asked + TTL
        except _TROUBLE as error:
            log.debug("lease.not_renewed", role=self._role, error=type(error).__name__)
        else:
            self._until = asked + TTL * 0.9
            if not leading:
                log.info("lease.taken", role=self._role)

    async def stop(self) -> None:
        """Give it up, so that the next one leads at once."""
        await end_task(self._task)
        if self.held and self._bucket is not None:
            self._until = 0.0
            try:
                await self._bucket.delete(self._role, last=self._revision)
            except _TROUBLE as error:
                log.debug("lease.not_released", role=self._role, error=type(error).__name__)
