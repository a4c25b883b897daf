from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.egress import addresses

PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "192.0.1.1"]
PUBLIC += ["2606:4700::1111", "2a00:1450:4001::1", "2400:cb00::1", "2003::1"]

NOT_PUBLIC = ["0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.1.1"]
NOT_PUBLIC += ["172.16.0.1", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"]
NOT_PUBLIC += ["198.51.100.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "168.63.129.16"]
NOT_PUBLIC += ["::", "::1", "::8.8.8.8", "::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1"]
NOT_PUBLIC += ["100::1", "2001::1", "2001:20::1", "2001:db8::1", "2002:808:808::1", "3ffe::1", "3fff::1", "5f00::1"]
NOT_PUBLIC += ["fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "4000::1", "e000::1"]

NEVER = ["169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"]
NEVER += ["fe80::1", "224.0.0.1", "ff02::1", "255.255.255.255"]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_public(text: str) -> None:
    assert addresses.is_public(ip_address(text))
    assert not addresses.is_never(ip_address(text))


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_special_private_and_unassigned_addresses_are_not_public(text: str) -> None:
    assert not addresses.is_public(ip_address(text))


@pytest.mark.parametrize("text", NEVER)
def test_metadata_link_local_and_multicast_addresses_are_never_allowed(text: str) -> None:
    assert addresses.is_never(ip_address(text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("::ffff:10.1.2.3", id="mapped"),
        pytest.param("::ffff:0:10.1.2.3", id="translated"),
        pytest.param("64:ff9b::10.1.2.3", id="nat64"),
        pytest.param("64:ff9b:1::10.1.2.3", id="nat64-local"),
        pytest.param("2002:0a01:0203::1", id="6to4"),
        pytest.param("::10.1.2.3", id="compatible"),
        pytest.param("2001:0:1:2:3:4:f5fe:fdfc", id="teredo"),
    ],
)
def test_an_ipv4_address_is_found_inside_an_ipv6_address(text: str) -> None:
    assert addresses.embedded_ipv4(ip_address(text)) == IPv4Address("10.1.2.3")


@pytest.mark.parametrize("text", ["::", "::1", "2606:4700::1111", "10.1.2.3", "fd00::1"])
def test_other_addresses_carry_no_ipv4_address(text: str) -> None:
    assert addresses.embedded_ipv4(ip_address(text)) is None


@given(st.ip_addresses(v=4))
def test_the_table_calls_nothing_public_that_python_calls_private(address: IPv4Address) -> None:
    assert not (addresses.is_public(address) and address.is_private)


@given(st.ip_addresses(v=6))
def test_what_carries_an_ipv4_address_is_never_public_by_itself(address: IPv6Address) -> None:
    assert not (addresses.is_public(address) and addresses.embedded_ipv4(address) is not None)
