"""Connections of `httpcore` and its successor that are made to public addresses only: their network, fenced in."""

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

from trunkline_actors.adapters.outbound import AddressRefused, is_public


class Guarded:
    """A network backend that looks a name up once, and connects to what was found only where that is public.

    `network` is the backend that connects, `failed` the error it raises where that does not go.
    """

    def __init__(self, network: Any, failed: type[Exception]) -> None:
        self._network = network
        self._failed = failed

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> Any:
        allowed = [address for address in await self._addresses(host, port) if is_public(address)]
        if not allowed:
            raise AddressRefused
        failed: Exception | None = None
        for address in allowed:
            try:
                return await self._network.connect_tcp(address, port, timeout, local_address, socket_options)
            except self._failed as error:
                failed = error
        assert failed is not None
        raise failed

    async def sleep(self, seconds: float) -> None:
        await self._network.sleep(seconds)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise self._failed(str(error)) from error
        return list(dict.fromkeys(str(info[4][0]) for info in infos))
