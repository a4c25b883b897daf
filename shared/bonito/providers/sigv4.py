"""AWS Signature Version 4: what proves to AWS who sends a request, without an SDK.

Rules: "Create a signed AWS API request" in the IAM User Guide. botocore, the oracle of the tests, is 31 MiB.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from bonito.clouds.access import AwsCredentials

if TYPE_CHECKING:
    from yarl import URL

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
UNRESERVED = "-_.~"
# Headers that a proxy or the client itself may change on the way.
UNSIGNED = frozenset({"connection", "user-agent", "accept-encoding", "expect", "transfer-encoding"})


def signed_headers(
    method: str,
    url: URL,
    *,
    headers: Mapping[str, str],
    body: bytes,
    credentials: AwsCredentials,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """The headers of a request, by lower-case name, with those that sign it.

    Args:
        method: in capitals.
        url: as it will be sent, its path escaped once.
        headers: all that the request depends on, the host left out.
        body: whole.
        credentials: of the account that pays.
        region: of the endpoint.
        service: its signing name: `bedrock` for the runtime and for the control plane.
        now: aware; AWS takes it within five minutes.
    """
    stamp = now.strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    sent |= {"host": _host(url), "x-amz-date": stamp}
    if credentials.session_token:
        sent["x-amz-security-token"] = credentials.session_token
    names = sorted(name for name in sent if name not in UNSIGNED)
    canonical = "\n".join(
        [
            method,
            _canonical_path(url),
            _canonical_query(url),
            *(f"{name}:{sent[name]}" for name in names),
            "",
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/{TERMINATOR}"
    to_sign = "\n".join([ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{credentials.secret_access_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    sent["authorization"] = (
        f"{ALGORITHM} Credential={credentials.access_key_id}/{scope}, SignedHeaders={';'.join(names)}, "
        f"Signature={signature}"
    )
    return sent


def _host(url: URL) -> str:
    """As the client will send it: with a port that is not the scheme's own."""
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    return host if url.is_default_port() else f"{host}:{url.port}"


def _canonical_path(url: URL) -> str:
    """Every service but S3 escapes the path as it is sent once more."""
    return quote(url.raw_path, safe="/" + UNRESERVED)


def _canonical_query(url: URL) -> str:
    """The parameters escaped and in order of their names, then values."""
    pairs = [part.partition("=") for part in url.raw_query_string.split("&") if part]
    escaped = sorted(
        (quote(unquote(name), safe=UNRESERVED), quote(unquote(value), safe=UNRESERVED)) for name, _, value in pairs
    )
    return "&".join(f"{name}={value}" for name, value in escaped)
