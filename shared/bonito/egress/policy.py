"""Which addresses Bonito may connect to: the public internet, and what the operator named besides."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from bonito.egress import addresses
from bonito.errors import AddressNotAllowed, InvalidSettings

if TYPE_CHECKING:
    from yarl import URL

LOOPBACK = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))
NEVER_HOSTS = frozenset(
    {"metadata", "metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"}
)
MAX_URL_CHARS = 2048
MAX_HOST_CHARS = 253
LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
# What the URL standard reads as an IPv4 address: a last label of digits, or of hexadecimal digits after 0x.
NUMERIC_LABEL = re.compile(r"[0-9]+|0x[0-9a-f]*")
CANONICAL_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})")


@dataclass(frozen=True)
class Target:
    """A URL that was parsed, once: what is checked and what is requested are the same value.

    Attributes:
        url: scheme, host and path in their canonical form; without user information and fragment.
        host: lower case ASCII without a trailing dot, or an IP address without brackets.
        port: explicit, or the scheme's own.
    """

    url: URL
    host: str
    port: int

    def below(self, path: str) -> Target:
        """The same place with a path of our own appended; a query stays."""
        url = self.url.with_path(self.url.raw_path.rstrip("/") + path, encoded=True, keep_query=True)
        return replace(self, url=url)


@dataclass(frozen=True)
class EgressPolicy:
    """Public addresses always, these networks and hosts besides, metadata addresses never.

    Attributes:
        networks: an address inside is allowed, whatever name it was found by.
        hosts: exact names, lower case; whatever they resolve to is allowed.
        suffixes: of wildcards, with their leading dot: `.corp.example` allows `a.corp.example` and `a.b.corp.example`,
            neither `corp.example` nor `evilcorp.example`.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    hosts: frozenset[str] = frozenset()
    suffixes: tuple[str, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> EgressPolicy:
        """Read a comma-separated list of networks, addresses, hosts and `*.` wildcards.

        Raises:
            InvalidSettings: an entry is none of these; the message names it.
        """
        networks: list[IPv4Network | IPv6Network] = []
        hosts: set[str] = set()
        suffixes: list[str] = []
        for entry in filter(None, (part.strip().lower() for part in text.split(","))):
            network = _network(entry)
            if network is not None:
                networks.append(network)
            elif entry.startswith("*.") and _is_name(entry[2:]):
                suffixes.append(entry[1:])
            elif _is_name(entry):
                hosts.add(entry)
            else:
                raise InvalidSettings(
                    f"BONITO_EGRESS_ALLOW: {entry!r} is no network (10.0.0.0/8), no address, no host name and no"
                    " wildcard (*.corp.example)."
                )
        return cls(tuple(networks), frozenset(hosts), tuple(suffixes))

    def with_loopback(self) -> EgressPolicy:
        """The same policy, for a laptop: this machine's own services are allowed too."""
        return replace(self, networks=(*self.networks, *LOOPBACK))

    def parse(self, url: str) -> Target:
        """Parse an address that somebody chose and check all that can be checked without resolving it.

        Raises:
            AddressNotAllowed: not http(s), no plain host, user information, a fragment, an IP address in disguise, or
                one that is not allowed.
        """
        target = parse_url(url)
        if target.host in NEVER_HOSTS:
            raise AddressNotAllowed(f"{target.host} is a metadata service: requests never go there.")
        literal = _literal(target.host)
        if literal is not None:
            self.check(target.host, [literal])
        return target

    def check(
        self, host: str, found: Iterable[str | IPv4Address | IPv6Address]
    ) -> tuple[IPv4Address | IPv6Address, ...]:
        """All addresses that a host resolved to, when every one of them is allowed.

        Raises:
            AddressNotAllowed: one of them is not, or there is none. One bad address among good ones refuses the host:
                which of them a connection takes is not ours to bet on.
        """
        checked = tuple(_resolved(host, address) for address in found)
        if not checked:
            raise AddressNotAllowed(f"{host} resolves to no address.")
        names_host = host in self.hosts or host.endswith(self.suffixes)
        for address in checked:
            if not self._permits(address, names_host=names_host):
                raise AddressNotAllowed(
                    f"{host} is not a public address. An operator can allow it with BONITO_EGRESS_ALLOW."
                    if not addresses.is_never(address)
                    else f"{host} is a metadata, link-local or multicast address: requests never go there."
                )
        return checked

    def _permits(self, address: IPv4Address | IPv6Address, *, names_host: bool) -> bool:
        """An address that carries an IPv4 address needs leave for itself and for what it carries."""
        if addresses.is_never(address):
            return False
        carried = addresses.embedded_ipv4(address)
        if carried is not None and not self._permits(carried, names_host=names_host):
            return False
        is_listed = any(address in network for network in self.networks if network.version == address.version)
        return is_listed or names_host or addresses.is_public(address)


def parse_url(text: str) -> Target:
    """Parse a URL into the one form that is checked and requested; AddressNotAllowed when it has tricks in it."""
    from yarl import URL

    if len(text) > MAX_URL_CHARS:
        raise AddressNotAllowed(f"The address is not a URL of at most {MAX_URL_CHARS} characters.")
    if not text.isascii() or re.search(r"[\x00-\x20\x7f\\]", text):
        raise AddressNotAllowed("The address holds spaces, backslashes, control or non-ASCII characters.")
    try:
        url = URL(text, encoded=True)  # a path keeps its escapes: signatures are made over them
        host, port = url.raw_host, url.port
    except ValueError as error:
        raise AddressNotAllowed("The address is not a URL.") from error
    if url.scheme not in ("http", "https"):
        raise AddressNotAllowed("The address must begin with http:// or https://.")
    if "@" in re.split(r"[/?#]", text.partition("://")[2], maxsplit=1)[0]:
        raise AddressNotAllowed("The address holds a user name or password before the host.")
    if "#" in text:
        raise AddressNotAllowed("The address holds a fragment (#).")
    if not host or not port:
        raise AddressNotAllowed("The address names no host, or port 0.")
    host = _canonical_host(host, is_bracketed=f"[{host}]" in url.raw_authority)
    return Target(url.with_host(host) if host != url.raw_host else url, host, port)


def _canonical_host(host: str, *, is_bracketed: bool) -> str:
    host = host.lower()
    if is_bracketed:
        if "%" in host or not isinstance(_literal(host), IPv6Address):
            raise AddressNotAllowed("The address in brackets is no plain IPv6 address.")
        return str(ip_address(host))
    host = host.removesuffix(".")
    if NUMERIC_LABEL.fullmatch(host.rpartition(".")[2]):
        if CANONICAL_IPV4.fullmatch(host) and _literal(host) is not None:
            return host
        raise AddressNotAllowed("The host is a number that is no plain IPv4 address.")
    if not _is_name(host):
        raise AddressNotAllowed("The host is not a valid host name.")
    return host


def _is_name(host: str) -> bool:
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARS or NUMERIC_LABEL.fullmatch(labels[-1]):
        return False
    return all(LABEL.fullmatch(label) for label in labels)


def _network(entry: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(entry)
    except ValueError:
        return None


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _resolved(host: str, address: str | IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """An answer of the resolver as a value; one with a zone id is link-local and so never allowed."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise AddressNotAllowed(f"{host} is an address inside a zone: requests never go there.")
    return parsed
