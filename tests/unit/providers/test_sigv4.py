"""Our signatures are those of botocore, AWS's own client, and of AWS's published example."""

from __future__ import annotations

import datetime as dt
from typing import Any
from urllib.parse import quote

import botocore.auth
import botocore.credentials
import pytest
from botocore.awsrequest import AWSRequest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from bonito.clouds.access import AwsCredentials
from bonito.providers import sigv4
from bonito.providers.bedrock import MODEL_ID

NOW = dt.datetime(2026, 3, 1, 12, 30, 45, tzinfo=dt.UTC)
KEYS = AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SESSION = AwsCredentials("ASIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjE==")


def ours(method: str, url: str, body: bytes, headers: dict[str, str], **given: Any) -> dict[str, str]:
    arguments: dict[str, Any] = {"credentials": KEYS, "region": "eu-central-1", "service": "bedrock", "now": NOW}
    return sigv4.signed_headers(method, URL(url, encoded=True), headers=headers, body=body, **arguments | given)


def check_as_botocore_signs(
    method: str, url: str, body: bytes, headers: dict[str, str], credentials: AwsCredentials
) -> None:
    """botocore signs for this moment, and we for the moment that it wrote down."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    keys = botocore.credentials.Credentials(
        credentials.access_key_id, credentials.secret_access_key, credentials.session_token
    )
    botocore.auth.SigV4Auth(keys, "bedrock", "eu-central-1").add_auth(request)
    signed_at = dt.datetime.strptime(request.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)

    signed = ours(method, url, body, headers, credentials=credentials, now=signed_at)

    assert signed["authorization"] == request.headers["Authorization"]


@pytest.mark.parametrize("credentials", [KEYS, SESSION], ids=["keys", "session"])
@pytest.mark.parametrize(
    ("method", "url"),
    [
        pytest.param("POST", "https://bedrock-runtime.eu-central-1.amazonaws.com/model/m/invoke", id="plain"),
        pytest.param(
            "POST",
            "https://bedrock-runtime.eu-central-1.amazonaws.com/model/amazon.titan-embed-text-v2%3A0/invoke",
            id="colon",
        ),
        pytest.param(
            "POST",
            "https://bedrock-runtime.eu-central-1.amazonaws.com/model/arn%3Aaws%3Abedrock%3Aeu%3A1%3Aprofile%2Fx/invoke",
            id="arn",
        ),
        pytest.param("GET", "https://bedrock.eu-central-1.amazonaws.com/foundation-models?b=2&a=1&a=0", id="query"),
        pytest.param("GET", "https://bedrock.eu-central-1.amazonaws.com/foundation-models?a=%2F%20~&c=", id="escapes"),
        pytest.param("GET", "https://bedrock.eu-central-1.amazonaws.com/", id="root"),
        pytest.param("POST", "http://127.0.0.1:8123/model/m/invoke", id="port"),
    ],
)
def test_a_signature_is_botocores(method: str, url: str, credentials: AwsCredentials) -> None:
    body = b'{"inputText": "caf\xc3\xa9"}' if method == "POST" else b""

    check_as_botocore_signs(
        method, url, body, {"content-type": "application/json", "accept": "application/json"}, credentials
    )


@given(
    model=st.from_regex(MODEL_ID, fullmatch=True),
    body=st.binary(max_size=200),
    value=st.text(alphabet="abc  xyz=,;", max_size=20),
)
def test_any_model_body_and_header_is_signed_as_botocore_does(model: str, body: bytes, value: str) -> None:
    url = f"https://bedrock-runtime.eu-central-1.amazonaws.com/model/{quote(model, safe='')}/invoke"

    check_as_botocore_signs("POST", url, body, {"content-type": "application/json", "x-amzn-trace": value}, SESSION)


def test_awss_own_example_comes_out() -> None:
    """ "get-vanilla-query-order-key-case" of AWS's signature test suite."""
    signed = ours(
        "GET",
        "https://example.amazonaws.com/?Param2=value2&Param1=value1",
        b"",
        {},
        credentials=AwsCredentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
        region="us-east-1",
        service="service",
        now=dt.datetime(2015, 8, 30, 12, 36, tzinfo=dt.UTC),
    )

    assert signed["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=host;x-amz-date, Signature=b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    )


def test_what_a_proxy_may_change_is_sent_and_not_signed() -> None:
    signed = ours("GET", "https://bedrock.eu-central-1.amazonaws.com/", b"", {"User-Agent": "bonito"})

    assert signed["user-agent"] == "bonito"
    assert "user-agent" not in signed["authorization"]
