"""Sends spans and metrics to a collector, from a thread of its own: one that is slow or away slows nobody.

What waits is bounded, what doesn't fit is dropped and counted. The thread puts together what is encoded already, and
sends it: it takes the interpreter from the event loop for a fraction of a millisecond a batch.
"""

import asyncio
import gzip
import http.client
import os
import socket
import ssl
import threading
import time
from collections import deque
from urllib.parse import urlsplit

import structlog
from trunkline_actors.runtime import Runtime
from trunkline_actors.spans import Value
from trunkline_actors.tracing import ToUpstream, Tracing, sampler
from trunkline_events.tasks import end_task

from trunkline.telemetry.config import Otlp, Target
from trunkline.telemetry.families import Family, Names, of_gateway, of_process
from trunkline.telemetry.wire import encoded, metrics_request, spans_request

log = structlog.get_logger()

LAST_WORDS_S = 2.0
"""Seconds that the end of a process waits for a collector, at most."""
TRIES = 3
TRY_AGAIN_AFTER_S = 0.5
_AGAIN = frozenset({429, 502, 503, 504})
"""What a collector says that wants to be asked again, as OTLP has it."""
COMPLAIN_EVERY_S = 60.0


class Exporter:
    """Exports what one process has to tell."""

    def __init__(self, otlp: Otlp, runtime: Runtime, to_upstream: ToUpstream = "local") -> None:
        self._otlp = otlp
        self._runtime = runtime
        self._resource: dict[str, Value] = {
            "service.name": "trunkline",
            "service.version": runtime.version,
            "service.instance.id": runtime.name,
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "telemetry.sdk.name": "trunkline",
            "telemetry.sdk.language": "python",
            "trunkline.roles": list(runtime.roles),
            **otlp.resource,
        }
        chosen = sampler(otlp.sampler, otlp.argument)
        self._tracing = Tracing(chosen, encoded, to_upstream=to_upstream, most=otlp.most, batch=otlp.batch)
        self._traces = Sender(otlp.traces) if otlp.traces else None
        self._metrics = Sender(otlp.metrics) if otlp.metrics else None
        self._measured: deque[bytes] = deque(maxlen=1)  # who missed one hears the next, which says it all
        self._awake = threading.Event()
        self._ending = threading.Event()
        self._began = time.time()
        self._complained = float("-inf")
        self._thread = threading.Thread(target=self._work, name="telemetry", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Record from here on."""
        if self._traces is not None:
            self._tracing.wake = self._awake.set
            self._runtime.tracing = self._tracing
            self._tasks.append(asyncio.create_task(self._flush()))
        self._thread.start()
        if self._metrics is not None:
            self._tasks.append(asyncio.create_task(self._measure()))

    async def stop(self) -> None:
        """Record nothing more, and send what there is, as far as that goes at once."""
        self._runtime.tracing = None
        for task in self._tasks:
            await end_task(task)
        self._tracing.flush()
        if self._metrics is not None:
            self._measured.append(self._measurement())
        self._ending.set()
        self._awake.set()
        await asyncio.to_thread(self._thread.join, LAST_WORDS_S)

    # -- on the event loop -------------------------------------------------------------------------------------------

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(self._otlp.every_s)
            self._tracing.flush()
            self._awake.set()

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(self._otlp.metrics_every_s)
            try:
                self._measured.append(self._measurement())
            except Exception as error:  # whatever it was: the next ones are told all the same
                log.exception("telemetry.not_measured", error=type(error).__name__)
            self._awake.set()

    def _measurement(self) -> bytes:
        runtime, now = self._runtime, time.time()
        state = runtime.gateway.state
        families: list[Family] = list(of_process(runtime.telling.now(), Names(state.registry)))
        if "keeper" in runtime.roles:  # all say the same of the gateway, so one kind of process does
            families += of_gateway(state, None, runtime.clock())
        told = [one for one in families if one.points]
        return metrics_request(told, self._resource, runtime.version, self._began, now)

    # -- in the thread -----------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            self._awake.wait()
            self._awake.clear()
            ending = self._ending.is_set()
            try:
                self._export()
            except Exception as error:  # noqa: BLE001 - whatever it was: the next batch is sent all the same
                self._complain(type(error).__name__)
            if ending:
                for sender in filter(None, (self._traces, self._metrics)):
                    sender.close()
                return

    def _export(self) -> None:
        waiting = self._tracing.waiting
        while waiting and self._traces is not None:
            count = min(len(waiting), self._otlp.batch)
            spans = [waiting.popleft() for _ in range(count)]
            body = spans_request(spans, self._resource, self._runtime.version)
            if (problem := self._traces.send(body, self._ending)) is not None:
                self._runtime.telling.not_exported += count
                self._complain(problem)
        if self._measured and self._metrics is not None:
            problem = self._metrics.send(self._measured.popleft(), self._ending)
            if problem is not None:
                self._complain(problem)

    def _complain(self, problem: str) -> None:
        now = time.monotonic()
        if now - self._complained >= COMPLAIN_EVERY_S:
            self._complained = now
            dropped = self._tracing.dropped + self._runtime.telling.not_exported
            log.warning("telemetry.not_exported", reason=problem, dropped=dropped)


class Sender:
    """Posts OTLP messages to one place, on one connection."""

    def __init__(self, target: Target) -> None:
        self._target = target
        parts = urlsplit(target.url)
        self._host, self._port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._fields = {"Content-Type": "application/x-protobuf", "User-Agent": "trunkline", **target.headers}
        if target.gzip:
            self._fields["Content-Encoding"] = "gzip"
        self._connection: http.client.HTTPConnection | None = None

    def send(self, body: bytes, ending: threading.Event) -> str | None:
        """Send a message, again where the collector wants that; why it was not taken, or None."""
        if self._target.gzip:
            body = gzip.compress(body, 1)
        for number in range(1, TRIES + 1):
            try:
                status = self._post(body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.close()
                return type(error).__name__
            if status < 300:
                return None
            if status not in _AGAIN or number == TRIES or ending.wait(TRY_AGAIN_AFTER_S * number):
                break
        return f"status {status}"

    def _post(self, body: bytes) -> int:
        fresh = self._connection is None
        try:
            return self._exchange(body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            self.close()
            if fresh:
                raise
            return self._exchange(body)  # it was kept alive for too long

    def _exchange(self, body: bytes) -> int:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.request("POST", self._path, body, self._fields)
        response = self._connection.getresponse()
        response.read()
        return response.status

    def _connect(self) -> http.client.HTTPConnection:
        target = self._target
        if not self._tls:
            return http.client.HTTPConnection(self._host, self._port, timeout=target.timeout_s)
        context = ssl.create_default_context(cafile=target.certificate)
        if target.client is not None:
            context.load_cert_chain(*target.client)
        return http.client.HTTPSConnection(self._host, self._port, timeout=target.timeout_s, context=context)

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
