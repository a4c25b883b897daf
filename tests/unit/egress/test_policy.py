from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonito.egress.policy import EgressPolicy, parse_url
from bonito.errors import AddressNotAllowed, InvalidSettings

PUBLIC_ONLY = EgressPolicy()
EVERYTHING = EgressPolicy.from_text("0.0.0.0/0, ::/0, metadata.google.internal, *.internal")


def test_settings_text_is_read_into_networks_hosts_and_wildcards() -> None:
    policy = EgressPolicy.from_text(" 10.0.0.0/8, fd00::/8 ,192.168.7.7, vLLM.internal,,*.corp.example ")

    assert policy.networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"), ip_network("192.168.7.7/32"))
    assert policy.hosts == {"vllm.internal"}
    assert policy.suffixes == (".corp.example",)
    assert EgressPolicy.from_text("") == EgressPolicy()


@pytest.mark.parametrize(
    "entry",
    [
        "10.0.0.1/8",
        "10.0.0.0/33",
        "256.1.1.1",
        "http://a.example",
        "a.example:80",
        "*",
        "*.",
        "a*.example",
        "a..b",
        "-a.b",
    ],
)
def test_a_wrong_entry_in_the_settings_is_named(entry: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        EgressPolicy.from_text(f"10.0.0.0/8,{entry}")

    assert repr(entry) in caught.value.message


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("https://api.openai.com/v1", "api.openai.com", 443),
        ("HTTP://API.Example:8080/x?y=1", "api.example", 8080),
        ("https://api.example./v1", "api.example", 443),
        ("http://8.8.8.8", "8.8.8.8", 80),
        ("http://[2606:4700::1111]:81/", "2606:4700::1111", 81),
        ("http://[2606:4700:0:0::1111]/", "2606:4700::1111", 80),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443),
        ("https://a_b.example/@path", "a_b.example", 443),
    ],
)
def test_a_plain_url_is_parsed_into_its_canonical_form(url: str, host: str, port: int) -> None:
    target = PUBLIC_ONLY.parse(url)

    assert (target.host, target.port) == (host, port)
    assert target.url.raw_host == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example",
        "//api.example",
        "ftp://api.example/",
        "file:///etc/passwd",
        "gopher://api.example/",
        "javascript:alert(1)",
        "http:///path",
        "http:api.example",
        "http://user@api.example/",
        "http://user:pass@api.example/",
        "http://@api.example/",
        "http://:@api.example/",
        "http://api.example@10.0.0.1/",
        "http://api.example/#fragment",
        "http://api.example#@10.0.0.1/",
        "http://api.example\\@10.0.0.1/",
        "http://api.exa\tmple/",
        "http://api.example/a b",
        " http://api.example/",
        "http://api.example/\r\nhost: x",
        "http://api%2eexample/",
        "http://api..example/",
        "http://-api.example/",
        "http://api.example:0/",
        "http://api.example:99999/",
        "http://api.example:port/",
        "http://[::1]x/",
        "http://[api.example]/",
        "http://" + "a." * 130 + "example/",
        "http://" + "a" * 64 + ".example/",
        "http://api.example/" + "x" * 2048,
        "http://bücher.example/",
    ],
)
def test_a_url_with_tricks_in_it_is_refused_whatever_is_allowed(url: str) -> None:
    with pytest.raises(AddressNotAllowed):
        EVERYTHING.parse(url)


@pytest.mark.parametrize(
    "host",
    [
        pytest.param("2130706433", id="decimal"),
        pytest.param("0x7f000001", id="hexadecimal"),
        pytest.param("0x7f.0.0.1", id="hexadecimal-part"),
        pytest.param("127.0.0.0x1", id="hexadecimal-last-part"),
        pytest.param("127.0.0.0x", id="empty-hexadecimal"),
        pytest.param("017700000001", id="octal"),
        pytest.param("0177.0.0.1", id="octal-part"),
        pytest.param("8.8.8.010", id="octal-last-part"),
        pytest.param("127.1", id="short"),
        pytest.param("127.0.1", id="three-parts"),
        pytest.param("1.2.3.4.5", id="five-parts"),
        pytest.param("256.1.1.1", id="too-large"),
        pytest.param("example.1", id="number-as-last-label"),
        pytest.param("①②⑦.⓪.⓪.①", id="unicode-digits"),
        pytest.param("[fe80::1%25eth0]", id="zone"),
        pytest.param("[fe80::1%eth0]", id="bare-zone"),
    ],
)
def test_an_ip_address_in_disguise_is_refused_whatever_is_allowed(host: str) -> None:
    with pytest.raises(AddressNotAllowed):
        EVERYTHING.parse(f"http://{host}/")


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1", "0.0.0.0", "[::1]", "[::]", "[fd00::1]", "[::ffff:8.8.8.8]"])
def test_a_literal_address_that_is_not_public_is_refused(host: str) -> None:
    with pytest.raises(AddressNotAllowed):
        PUBLIC_ONLY.parse(f"http://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://169.254.170.2/",
        "http://[fd00:ec2::254]/",
        "http://[fd20:ce::254]/",
        "http://168.63.129.16/",
        "http://100.100.100.200/",
        "http://[::ffff:169.254.169.254]/",
        "http://[64:ff9b::169.254.169.254]/",
        "http://[2002:a9fe:a9fe::]/",
        "http://metadata.google.internal/",
        "http://METADATA.google.internal./",
        "http://metadata/",
    ],
)
def test_metadata_is_refused_even_when_everything_is_allowed(url: str) -> None:
    with pytest.raises(AddressNotAllowed):
        EVERYTHING.parse(url)


def test_an_allowed_host_that_resolves_to_metadata_is_refused() -> None:
    policy = EgressPolicy.from_text("vllm.internal")

    assert policy.check("vllm.internal", ["10.9.9.9"])
    with pytest.raises(AddressNotAllowed):
        policy.check("vllm.internal", ["169.254.169.254"])


def test_an_allowed_network_opens_its_addresses_and_no_others() -> None:
    policy = EgressPolicy.from_text("10.1.0.0/16,fd12::/16")

    assert policy.parse("http://10.1.2.3:8000/v1").host == "10.1.2.3"
    assert policy.check("vllm.example", ["10.1.2.3", "fd12::7", "8.8.8.8"])
    with pytest.raises(AddressNotAllowed):
        policy.parse("http://10.2.0.1/")
    with pytest.raises(AddressNotAllowed):
        policy.check("vllm.example", ["10.1.2.3", "10.2.0.1"])


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("corp.example", False),
        ("a.corp.example", True),
        ("a.b.corp.example", True),
        ("evilcorp.example", False),
        ("corp.example.evil.example", False),
        ("vllm.internal", True),
        ("a.vllm.internal", False),
        ("xvllm.internal", False),
    ],
)
def test_hosts_match_exactly_and_wildcards_at_label_boundaries(host: str, is_allowed: bool) -> None:
    policy = EgressPolicy.from_text("*.corp.example,vllm.internal")

    if is_allowed:
        assert policy.check(host, ["10.0.0.1"])
    else:
        with pytest.raises(AddressNotAllowed):
            policy.check(host, ["10.0.0.1"])


def test_an_address_that_carries_an_ipv4_address_needs_leave_for_both() -> None:
    nat64 = EgressPolicy.from_text("64:ff9b::/96")

    assert nat64.check("api.example", ["64:ff9b::8.8.8.8"])
    with pytest.raises(AddressNotAllowed):
        nat64.check("api.example", ["64:ff9b::10.0.0.1"])
    with pytest.raises(AddressNotAllowed):
        EgressPolicy.from_text("10.0.0.0/8").check("api.example", ["::ffff:10.0.0.1"])


def test_every_address_of_a_host_must_be_allowed() -> None:
    assert len(PUBLIC_ONLY.check("api.example", ["1.1.1.1", "2606:4700::1111"])) == 2
    with pytest.raises(AddressNotAllowed):
        PUBLIC_ONLY.check("api.example", ["1.1.1.1", "10.0.0.1"])
    with pytest.raises(AddressNotAllowed):
        PUBLIC_ONLY.check("api.example", ["1.1.1.1", "fe80::1%2"])
    with pytest.raises(AddressNotAllowed):
        PUBLIC_ONLY.check("api.example", [])


def test_loopback_is_allowed_only_when_it_is_added() -> None:
    laptop = PUBLIC_ONLY.with_loopback()

    assert laptop.parse("http://127.0.0.1:11434/v1").port == 11434
    assert laptop.check("localhost", ["127.0.0.1", "::1"])
    for url in ("http://127.0.0.1/", "http://[::1]/"):
        with pytest.raises(AddressNotAllowed):
            PUBLIC_ONLY.parse(url)
    with pytest.raises(AddressNotAllowed):
        laptop.parse("http://0.0.0.0/")


@given(st.text(max_size=60))
def test_any_text_is_a_target_or_a_typed_error(text: str) -> None:
    for url in (text, f"http://{text}", f"http://{text}/", f"https://api.example/{text}"):
        try:
            target = parse_url(url)
        except AddressNotAllowed:
            continue
        assert target.host.isascii()
        assert target.url.raw_host == target.host
        assert target.url.raw_user is None
