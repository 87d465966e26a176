"""Where requests may go: public addresses, unless a provider is marked local. Pure.

What counts is the address a socket is connected to, never the name or the form in which it was written: a name may mean
another address at every look-up, and `2130706433`, `0x7f.1` and `[::ffff:127.0.0.1]` all are 127.0.0.1.
"""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from trunkline_events.failure import Failure, FailureClass

# Not for the public, though Python (of some versions) takes them for global ones; the first is what every machine on
# Azure can ask for credentials, and Oracle's is in the second.
_SPECIAL = tuple(
    ip_network(text)
    for text in ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48", "3fff::/20", "5f00::/16", "fec0::/10")
)
# Translated to IPv4 on the way: the last 32 bits are where a request ends up.
_NAT64 = IPv6Network("64:ff9b::/96")


class AddressRefused(OSError):
    """The provider's address is not a public one. Register it with `--local` if it is meant to be called.

    The text is the same for every address: a connection that is tried at several fails with it only where all of them
    were refused, and with what else went wrong where one was not.
    """

    def __init__(self) -> None:
        super().__init__("not a public address")


REFUSED = Failure(
    kind=FailureClass.INTERNAL,
    message="the provider's base URL leads to a private address, which is refused: register it with --local",
)
"""What a call to a refused address ends with. No circuit opens for it, and waiting for it would be in vain."""


def is_public(address: str) -> bool:
    """Whether an IP address, as a socket names it, is one of the public internet.

    Private, shared, loopback, link-local, multicast, unspecified and reserved ones are not, nor are those that give
    machines of a cloud their credentials, nor IPv6 addresses that stand for such an IPv4 one. False for what is none.
    """
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return all(_is_global(one) for one in _meant(found))


def _meant(address: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """An address, or those it is translated to on the way."""
    if isinstance(address, IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    if address.sixtofour is not None:
        return [address.sixtofour]
    if address.teredo is not None:
        return list(address.teredo)
    if address in _NAT64:
        return [IPv4Address(int(address) & 0xFFFF_FFFF)]
    return [address]


def _is_global(address: IPv4Address | IPv6Address) -> bool:
    special = any(address in network for network in _SPECIAL if network.version == address.version)
    return address.is_global and not (address.is_multicast or address.is_reserved or special)
