"""Trunkline: the LLM gateway whose books always balance.

async with trunkline.connect() as gw:
    answer = await gw.chat.create("auto", "Hello!")
    print(answer.text, answer.cost)
"""

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from trunkline.errors import TrunklineError

if TYPE_CHECKING:
    from trunkline.client import Gateway

__version__ = "0.1.0"

__all__ = ["TrunklineError", "__version__", "connect"]


def connect(url: str | None = None, key: str | None = None) -> "AbstractAsyncContextManager[Gateway]":
    """Connect to a gateway's bus: `async with trunkline.connect("nats://127.0.0.1:4222") as gw`.

    Without arguments TRUNKLINE_NATS and TRUNKLINE_KEY count, then the address that `trunkline up` serves by default.
    """
    from trunkline import client, settings

    return client.connect(url or settings.client_url(), key or settings.client_key())
