"""What tokens cost, as it is reckoned with."""

from msgspec import Struct


class Rate(Struct, frozen=True, kw_only=True):
    """Nano-dollars a million tokens, and the version of the price list they are from."""

    input_nanos: int
    cached_input_nanos: int
    output_nanos: int
    version: str
