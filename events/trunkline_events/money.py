"""Money as integers: nano-dollars in events and arithmetic, decimal text at the surface.

Prices are US dollars a million tokens; in nano-dollars a million tokens they are whole numbers too (down to a
billionth of a dollar), so that the cost of any usage is exact rational arithmetic, rounded up once.
"""

from decimal import Decimal, InvalidOperation

NANOS = 1_000_000_000
_MILLION = 1_000_000
_MAX_USD = Decimal(9_000_000_000)


class BadAmount(ValueError):
    """Not an amount of US dollars. Write a decimal such as "0.25", at most nine places, not negative."""


def nanos_from_usd(text: str) -> int:
    """`"2.5"` → 2_500_000_000. Raises BadAmount on anything that isn't a plain amount."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise BadAmount(f'{text!r} is not an amount in US dollars; write it like "0.25"') from None
    if not amount.is_finite() or amount < 0 or amount > _MAX_USD:
        raise BadAmount(f"{text!r} is not an amount we can keep: from 0 to {_MAX_USD} US dollars")
    if amount != round(amount, 9):  # compared exactly; products are rounded to the context's 28 digits
        raise BadAmount(f"{text!r} has more than nine decimal places")
    return int(amount * NANOS)


def usd_from_nanos(nanos: int) -> str:
    """2_500_000_000 → `"2.5"`; never in scientific notation, no trailing zeros."""
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    whole, rest = divmod(nanos, NANOS)
    return f"{sign}{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else f"{sign}{whole}"


def cost_nanos(parts: tuple[tuple[int, int], ...]) -> int:
    """The cost of (tokens, price in nano-dollars a million tokens) pairs, rounded up once to a whole nano-dollar."""
    return -(-sum(tokens * price for tokens, price in parts) // _MILLION)
