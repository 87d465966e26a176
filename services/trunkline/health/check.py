"""One thing that the doctor looked at."""

from typing import Literal

from msgspec import Struct


class Check(Struct, frozen=True):
    """One thing looked at. `unknown`: it can't be seen from here; `next` says what to do about it."""

    name: str
    state: Literal["ok", "problem", "unknown"]
    found: str
    next: str = ""
