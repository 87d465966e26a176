"""How a client's command runs: settings, connect, do, close."""

import argparse
import asyncio
from collections.abc import Awaitable, Callable

from trunkline import client, lifecycle, settings, telemetry
from trunkline.client import Gateway


def bus_url(args: argparse.Namespace) -> str:
    """Where the bus is: the flag, else the environment, else trunkline.yaml, else this machine. Raises BadSettings."""
    chosen = settings.load({"nats": args.nats})
    return chosen.nats or f"nats://127.0.0.1:{chosen.nats_port}"


def with_gateway(args: argparse.Namespace, command: Callable[[Gateway], Awaitable[int]]) -> int:
    """Connect, run one command, close; its exit code. Ctrl-C cancels the command, which may clean up."""
    for value in vars(args).values():
        if isinstance(value, str):
            value.encode()  # what isn't UTF-8 can't be sent: better said before connecting
    telemetry.configure("error")
    url, key = bus_url(args), settings.client_key()

    async def connected() -> int:
        async with client.connect(url, key) as gateway:
            return await command(gateway)

    try:
        return lifecycle.run(connected)
    except asyncio.CancelledError:  # the second Ctrl-C, while cleaning up
        raise KeyboardInterrupt from None
