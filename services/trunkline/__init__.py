"""Trunkline: the LLM gateway whose books always balance.

async with trunkline.connect() as gw:
    answer = await gw.chat.create("auto", "Hello!")
    print(answer.text, answer.cost)
"""

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING

from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from trunkline import sync
    from trunkline.client import Gateway

__version__ = "0.1.0"

__all__ = ["TrunklineError", "__version__", "connect", "connect_sync"]


def connect(url: str | None = None, key: str | None = None) -> "AbstractAsyncContextManager[Gateway]":
    """Connect to a gateway's bus: `async with trunkline.connect("nats://127.0.0.1:4222") as gw`.

    Without arguments TRUNKLINE_NATS and TRUNKLINE_KEY count, then the address that `trunkline up` serves by default.
    """
    from trunkline import client, settings

    return client.connect(url or settings.client_url(), key or settings.client_key())


def connect_sync(url: str | None = None, key: str | None = None) -> "AbstractContextManager[sync.Gateway]":
    """The same for code without asyncio: `with trunkline.connect_sync() as gw: gw.chat.create("auto", "Hello!")`.

    Safe to use from several threads at once.
    """
    from trunkline import settings, sync

    return sync.connect(url or settings.client_url(), key or settings.client_key())
