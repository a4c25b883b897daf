from __future__ import annotations

import asyncio
import datetime as dt
import gc
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bonito.egress import client as egress
from bonito.egress.client import EgressClient
from bonito.egress.policy import EgressPolicy
from bonito.errors import AddressNotAllowed, ProviderFailed, ProviderTimeout

Serve = Callable[..., Awaitable[int]]
# 127.0.0.1 plays the one address that is allowed, every other loopback address the private network.
ONE_ADDRESS = EgressPolicy.from_text("127.0.0.1/32")


class Names:
    """A resolver of the test's own: each lookup of a name takes its next answer, the last one for ever."""

    def __init__(self, **answers: list[Sequence[str]]) -> None:
        self.answers, self.asked = answers, 0

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked += 1
        await asyncio.sleep(0)
        rest = self.answers.get(host.partition(".")[0])
        if not rest:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return rest.pop(0) if len(rest) > 1 else rest[0]


async def echo(request: web.Request) -> web.Response:
    """Tell what arrived, and through which connection."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    body = await request.read()
    return web.json_response(
        {"path": request.path_qs, "host": request.host, "peer": peer[1] if peer else 0, "bytes": len(body)}
        | {"headers": {name.lower(): value for name, value in request.headers.items()}}
    )


async def test_a_request_carries_what_was_given_and_asks_for_plain_bytes(serve: Serve) -> None:
    port = await serve(echo)

    async with EgressClient(ONE_ADDRESS) as client:
        headers = {"X-One": "1"}
        async with client.request("POST", f"http://127.0.0.1:{port}/a?b=c", headers=headers, body=b"abc") as answer:
            seen = await answer.json()

    assert answer.status == 200
    assert (seen["path"], seen["bytes"]) == ("/a?b=c", 3)
    assert seen["headers"]["x-one"] == "1"
    assert seen["headers"]["accept-encoding"] == "identity"


async def test_the_name_is_resolved_once_and_the_checked_address_is_connected_to(serve: Serve) -> None:
    port = await serve(echo)
    names = Names(model=[["127.0.0.1"], ["127.0.0.2"]])

    async with (
        EgressClient(ONE_ADDRESS, lookup=names) as client,
        client.request("GET", f"http://model.example:{port}/") as answer,
    ):
        seen = await answer.json()

    assert seen["host"] == f"model.example:{port}"
    assert names.asked == 1


async def test_a_name_that_turns_private_after_the_first_answer_is_refused(serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(headers={"connection": "close"})

    port = await serve(handler, host="0.0.0.0")
    names = Names(model=[["127.0.0.1"], ["127.0.0.2"]])

    async with EgressClient(ONE_ADDRESS, lookup=names, dns_ttl_s=0) as client:
        async with client.request("GET", f"http://model.example:{port}/") as answer:
            assert answer.status == 200
        with pytest.raises(AddressNotAllowed):
            await client.send("GET", f"http://model.example:{port}/")

    assert names.asked == 2


async def test_a_pooled_connection_leads_to_the_address_that_was_checked(serve: Serve) -> None:
    port = await serve(echo)
    names = Names(model=[["127.0.0.1"], ["127.0.0.2"]])
    peers = set()

    async with EgressClient(ONE_ADDRESS, lookup=names, dns_ttl_s=0) as client:
        for _ in range(3):
            async with client.request("GET", f"http://model.example:{port}/") as answer:
                peers.add((await answer.json())["peer"])

    assert len(peers) == 1
    assert names.asked == 1


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(["127.0.0.1", "127.0.0.2"], id="good-then-bad"),
        pytest.param(["127.0.0.2", "127.0.0.1"], id="bad-then-good"),
        pytest.param(["127.0.0.1", "::1"], id="other-family"),
        pytest.param(["127.0.0.1", "169.254.169.254"], id="metadata"),
        pytest.param(["::ffff:127.0.0.1"], id="mapped"),
        pytest.param(["127.0.0.1", "fe80::1%1"], id="zone"),
        pytest.param([], id="none"),
    ],
)
async def test_one_bad_address_among_the_answers_refuses_the_host(serve: Serve, answers: list[str]) -> None:
    port = await serve(echo, host="0.0.0.0")

    async with EgressClient(ONE_ADDRESS, lookup=Names(model=[answers])) as client:
        with pytest.raises(AddressNotAllowed):
            await client.send("GET", f"http://model.example:{port}/")


async def test_many_requests_at_once_share_one_refused_lookup() -> None:
    async with EgressClient(EgressPolicy(), lookup=Names(model=[["10.0.0.1"]])) as client:
        sent = (client.send("GET", "http://model.example/") for _ in range(20))
        outcomes = await asyncio.gather(*sent, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {AddressNotAllowed}


async def test_the_systems_resolver_is_checked_too(serve: Serve) -> None:
    port = await serve(echo)

    async with EgressClient(EgressPolicy()) as client:
        with pytest.raises(AddressNotAllowed):
            await client.send("GET", f"http://localhost:{port}/")
    async with (
        EgressClient(EgressPolicy().with_loopback()) as client,
        client.request("GET", f"http://localhost:{port}/") as answer,
    ):
        assert answer.status == 200


@pytest.mark.parametrize("host", ["127.0.0.2", "10.0.0.1", "169.254.169.254", "[::1]", "2130706433"])
async def test_literal_addresses_are_checked_though_nothing_resolves_them(serve: Serve, host: str) -> None:
    port = await serve(echo, host="0.0.0.0")

    async with EgressClient(ONE_ADDRESS) as client:
        with pytest.raises(AddressNotAllowed):
            await client.send("GET", f"http://{host}:{port}/")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300])
async def test_a_redirect_is_an_error_and_is_not_followed(serve: Serve, status: int) -> None:
    visited = []

    async def handler(request: web.Request) -> web.Response:
        visited.append(request.path)
        return web.Response(status=status, headers={"location": "/elsewhere"})

    port = await serve(handler)

    async with EgressClient(ONE_ADDRESS) as client:
        with pytest.raises(ProviderFailed, match="redirect"):
            await client.send("GET", f"http://127.0.0.1:{port}/here")

    assert visited == ["/here"]


async def test_nothing_is_taken_from_the_environment(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    port = await serve(echo)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    async with EgressClient(ONE_ADDRESS) as client, client.request("GET", f"http://127.0.0.1:{port}/") as answer:
        seen = await answer.json()

    assert "authorization" not in seen["headers"]


async def test_cookies_of_one_answer_are_not_sent_with_the_next_request(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.Response:
        answer = web.json_response(dict(request.cookies))
        answer.set_cookie("session", "somebody")
        return answer

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS, lookup=Names(model=[["127.0.0.1"]])) as client:
        for _ in range(2):
            async with client.request("GET", f"http://model.example:{port}/") as answer:
                assert await answer.json() == {}


async def test_a_compressed_answer_is_passed_on_as_it_is(serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        return web.Response(body=b"\x1f\x8bnot unpacked", headers={"content-encoding": "gzip"})

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client, client.request("GET", f"http://127.0.0.1:{port}/") as answer:
        assert await egress.read(answer) == b"\x1f\x8bnot unpacked"


async def test_a_body_of_many_megabytes_is_sent_whole(serve: Serve) -> None:
    port = await serve(echo)
    body = bytes(range(256)) * 20_000

    async with (
        EgressClient(ONE_ADDRESS) as client,
        client.request("POST", f"http://127.0.0.1:{port}/", body=body) as answer,
    ):
        seen = await answer.json()

    assert seen["bytes"] == len(body)
    assert seen["headers"]["content-length"] == str(len(body))


@pytest.mark.parametrize("declares_length", [True, False])
async def test_a_body_above_the_cap_is_refused(serve: Serve, declares_length: bool) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": "5000"} if declares_length else {})
        await answer.prepare(request)
        await answer.write(b"x" * 5000)
        return answer

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client:
        async with client.request("GET", f"http://127.0.0.1:{port}/") as answer:
            with pytest.raises(ProviderFailed, match="more than 4999 bytes"):
                await egress.read(answer, max_bytes=4999)
        async with client.request("GET", f"http://127.0.0.1:{port}/") as answer:
            assert len(await egress.read(answer, max_bytes=5000)) == 5000


async def test_an_answer_that_does_not_come_is_a_timeout(serve: Serve) -> None:
    async def handler(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        return web.Response()

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client:
        with pytest.raises(ProviderTimeout):
            await client.send("GET", f"http://127.0.0.1:{port}/", timeout_s=0.05)


async def test_a_body_that_stops_coming_is_a_timeout(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"first")
        await asyncio.sleep(60)
        return answer

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client, client.request("GET", f"http://127.0.0.1:{port}/") as answer:
        seen = []
        with pytest.raises(ProviderTimeout):
            async for piece in egress.chunks(answer, idle_timeout_s=1.0):
                seen.append(piece)

    assert seen == [b"first"]


async def test_a_body_that_breaks_off_is_a_failure(serve: Serve) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-length": "100"})
        await answer.prepare(request)
        await answer.write(b"first")
        assert request.transport is not None
        request.transport.abort()
        return answer

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client, client.request("GET", f"http://127.0.0.1:{port}/") as answer:
        with pytest.raises(ProviderFailed):
            await egress.read(answer)


async def test_leaving_the_block_early_closes_the_connection_at_the_server(serve: Serve) -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        try:
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.01)
        finally:
            gone.set()

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client:
        async with client.request("GET", f"http://127.0.0.1:{port}/") as answer:
            assert await answer.content.readany()
        await asyncio.wait_for(gone.wait(), 60)


async def test_cancelling_the_wait_for_the_head_closes_the_connection_at_the_server(serve: Serve) -> None:
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        arrived.set()
        try:
            await asyncio.sleep(60)
        finally:
            gone.set()
        return web.Response()

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS) as client:
        task = asyncio.create_task(client.send("GET", f"http://127.0.0.1:{port}/"))
        await asyncio.wait_for(arrived.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(gone.wait(), 60)


async def test_no_listener_no_name_and_no_http_are_failures_that_name_only_the_host() -> None:
    async def speak_nonsense(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 smtp ready\r\n")
        writer.close()

    server = await asyncio.start_server(speak_nonsense, "127.0.0.1", 0)
    speaking = server.sockets[0].getsockname()[1]
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        silent = bound.getsockname()[1]
        async with server, EgressClient(ONE_ADDRESS, lookup=Names()) as client:
            for url in (f"http://127.0.0.1:{silent}/", "http://unknown.example/", f"http://127.0.0.1:{speaking}/"):
                with pytest.raises(ProviderFailed) as caught:
                    await client.send("GET", f"{url}secret-path")
                assert "secret-path" not in caught.value.message


async def test_connections_to_one_host_are_bounded_and_waiting_for_one_times_out(serve: Serve) -> None:
    arrived = asyncio.Event()

    async def handler(_request: web.Request) -> web.Response:
        arrived.set()
        await asyncio.sleep(600)
        return web.Response()

    port = await serve(handler)
    async with EgressClient(ONE_ADDRESS, max_connections_per_host=1, connect_timeout_s=2.0) as client:
        first = asyncio.create_task(client.send("GET", f"http://127.0.0.1:{port}/"))
        await asyncio.wait_for(arrived.wait(), 60)
        with pytest.raises(ProviderTimeout):
            await client.send("GET", f"http://127.0.0.1:{port}/")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)


def test_one_client_serves_one_event_loop_after_another() -> None:
    client = EgressClient(ONE_ADDRESS)

    async def ask() -> bool:
        runner = web.AppRunner(web.Application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with client.request("GET", f"http://127.0.0.1:{runner.addresses[0][1]}/") as answer:
            await egress.read(answer)  # read to its end, the connection stays in the pool
        await runner.cleanup()
        return answer.status == 404

    assert [asyncio.run(ask()) for _ in range(3)] == [True] * 3
    asyncio.run(client.aclose())
    gc.collect()


async def test_one_client_is_not_shared_by_two_open_event_loops(serve: Serve) -> None:
    port = await serve(echo)
    async with EgressClient(ONE_ADDRESS) as client:
        async with client.request("GET", f"http://127.0.0.1:{port}/"):
            pass
        with pytest.raises(RuntimeError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, client.send("GET", f"http://127.0.0.1:{port}/"))


def certificate_for(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context with a fresh certificate for a name, and a client's context that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=subject, public_key=key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(private + pem)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(folder / "server.pem")
    return server, ssl.create_default_context(cadata=pem.decode())


async def test_the_certificate_is_checked_against_the_name_not_the_address(serve: Serve, tmp_path: Path) -> None:
    server_context, trusting = certificate_for("model.example", tmp_path)
    port = await serve(echo, ssl_context=server_context)
    names = Names(model=[["127.0.0.1"]], other=[["127.0.0.1"]])

    async with EgressClient(ONE_ADDRESS, lookup=names, ssl_context=trusting) as client:
        async with client.request("GET", f"https://model.example:{port}/") as answer:
            assert answer.status == 200
        for host in ("other.example", "127.0.0.1"):
            with pytest.raises(ProviderFailed, match="certificate"):
                await client.send("GET", f"https://{host}:{port}/")
    async with EgressClient(ONE_ADDRESS, lookup=names) as client:
        with pytest.raises(ProviderFailed, match="certificate"):
            await client.send("GET", f"https://model.example:{port}/")
