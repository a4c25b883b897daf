"""Which IP addresses belong to the public internet, and which no setting ever opens."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# IANA's special-purpose registry for IPv4, written out: the tables inside `ipaddress` change with Python's patch
# releases (3.11.7 calls 192.0.0.8 and 192.88.99.1 global). Everything outside is public.
NOT_PUBLIC_IPV4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network: Linux takes 0.0.0.0 for loopback
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers and by clouds' inner services
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "168.63.129.16/32",  # Azure's platform
    )
)

# IPv6 is public in 2000::/3 alone, less its special blocks: the rest is unassigned, local or carries an IPv4 address.
PUBLIC_IPV6 = IPv6Network("2000::/3")
NOT_PUBLIC_IPV6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments: Teredo, ORCHID, benchmarking
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3ffe::/16",  # the former 6bone
        "3fff::/20",
    )
)

# Instance metadata and credentials of the clouds, with all of link-local, since they hide in it (169.254.169.254 for
# instances, .170.2 and .170.23 for containers). Multicast and broadcast are no places to connect to at all.
NEVER = tuple(
    IPv4Network(text)
    for text in (
        "169.254.0.0/16",
        "168.63.129.16/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "224.0.0.0/4",
        "255.255.255.255/32",
    )
) + tuple(IPv6Network(text) for text in ("fe80::/10", "fd00:ec2::/32", "fd20:ce::254/128", "ff00::/8"))

# Networks whose addresses mean an IPv4 address, and how far to shift right to find it.
IPV4_CARRIERS = (
    (IPv6Network("::ffff:0:0/96"), 0),  # mapped
    (IPv6Network("::ffff:0:0:0/96"), 0),  # translated (SIIT)
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64, local
    (IPv6Network("2002::/16"), 80),  # 6to4
    (IPv6Network("::/96"), 0),  # compatible, long obsolete
)
TEREDO = IPv6Network("2001::/32")  # carries the IPv4 address with every bit flipped


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is one of the public internet: what no table knows is not."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_IPV4)
    return address in PUBLIC_IPV6 and not any(address in network for network in NOT_PUBLIC_IPV6)


def is_never(address: IPv4Address | IPv6Address) -> bool:
    """Whether the address is a cloud's metadata, link-local or multicast: refused whatever the settings say."""
    return any(address in network for network in NEVER if network.version == address.version)


def embedded_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 address of a transition mechanism stands for; None for all others."""
    if isinstance(address, IPv4Address) or int(address) <= 1:  # :: and ::1 are addresses of their own
        return None
    for network, shift in IPV4_CARRIERS:
        if address in network:
            return IPv4Address(int(address) >> shift & 0xFFFFFFFF)
    if address in TEREDO:
        return IPv4Address(~int(address) & 0xFFFFFFFF)
    return None
