"""Which addresses a provider may be called at."""

import pytest
from trunkline_actors.adapters.outbound import is_public

PUBLIC = ["8.8.8.8", "104.18.6.192", "2606:4700::6812:6c0", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]
PRIVATE = {
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private, by a name of old": ["fec0::1", "feff::1"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fc00::1"],
    "shared by a carrier": ["100.64.0.1", "100.100.100.200"],
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0", "fe80::1%1"],
    "metadata": ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "192.0.0.192"],
    "multicast": ["224.0.0.1", "239.1.1.1", "ff02::1", "ff0e::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "reserved": ["240.0.0.1", "255.255.255.255", "192.0.0.1", "192.0.2.1", "198.18.0.1", "198.19.255.255"],
    "reserved in IPv6": ["2001:db8::1", "3fff::1", "5f00::1", "100::1", "64:ff9b:1::8.8.8.8", "2001:2::1"],
    "IPv4 within IPv6": [
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "::ffff:a9fe:a9fe",
        "64:ff9b::10.0.0.1",
        "64:ff9b::100.64.0.1",
        "64:ff9b::c000:1",
        "::ffff:198.18.0.1",
        "::ffff:0:10.0.0.1",
        "2002:c0a8:101::1",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",
        "::127.0.0.1",
    ],
    "no address": ["localhost", "", "2130706433", "0x7f.1", "127.1", "8.8.8.8/32"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_called(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(("kind", "address"), [(kind, one) for kind, those in PRIVATE.items() for one in those])
def test_any_other_may_not(kind: str, address: str) -> None:
    assert not is_public(address), kind
