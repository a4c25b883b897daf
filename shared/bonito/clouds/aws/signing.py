"""The issuer's key in AWS KMS: an RSA_2048 key for SIGN_VERIFY."""

from __future__ import annotations

import base64
import json
import re

from bonito.clouds.access import AwsAccess
from bonito.clouds.aws.requests import OWN_RIGHTS, signed_post
from bonito.clouds.calling import Answer
from bonito.clouds.identity import PublicKey
from bonito.errors import AccessDenied, UpstreamError

KEY_ARN = re.compile(r"arn:(aws|aws-cn|aws-us-gov):kms:([a-z0-9-]+):[0-9]{12}:(key|alias)/[\w/-]{1,256}", re.ASCII)
ALGORITHM = "RSASSA_PKCS1_V1_5_SHA_256"


class KmsSigner:
    """Signer whose key never leaves KMS; its one caller needs `kms:Sign` and `kms:GetPublicKey`."""

    def __init__(self, key_arn: str, *, access: AwsAccess, endpoint_url: str | None = None) -> None:
        """Call nothing yet.

        Args:
            key_arn: of the key or an alias of it.
            access: the deployment's own rights.
            endpoint_url: of KMS; None: AWS' own in the key's region.
        """
        matched = KEY_ARN.fullmatch(key_arn)
        if matched is None:
            raise ValueError(f"{key_arn} is no ARN of a KMS key")
        self._key_arn, self._region, self._access = key_arn, matched[2], access
        suffix = "amazonaws.com.cn" if matched[1] == "aws-cn" else "amazonaws.com"
        self._endpoint = endpoint_url or f"https://kms.{self._region}.{suffix}/"

    async def public_key(self) -> PublicKey:
        """Its public half; UpstreamError, AccessDenied."""
        answer = await self._call("GetPublicKey", {})
        return PublicKey.from_der(base64.b64decode(str(answer.json().get("PublicKey", ""))))

    async def sign(self, data: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 over the SHA-256 of the data; UpstreamError, AccessDenied."""
        # KMS hashes what has up to 4,096 bytes itself; a token has some hundred.
        fields = {"Message": base64.b64encode(data).decode(), "MessageType": "RAW", "SigningAlgorithm": ALGORITHM}
        answer = await self._call("Sign", fields)
        return base64.b64decode(str(answer.json().get("Signature", "")))

    async def _call(self, action: str, fields: dict[str, str]) -> Answer:
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"TrentService.{action}"}
        body = json.dumps({"KeyId": self._key_arn} | fields).encode()
        answer = await signed_post(
            self._endpoint, service="kms", region=self._region, access=self._access, headers=headers, body=body
        )
        if answer.is_refusal:
            code = str(answer.json().get("__type", "")).rpartition("#")[2]
            if code in {"ThrottlingException", "KMSInternalException", "DependencyTimeoutException"}:
                raise UpstreamError("AWS KMS has no room now.")
            raise AccessDenied(
                f"AWS KMS does not let {OWN_RIGHTS} use the signing key ({code or answer.status}): it needs kms:Sign "
                "and kms:GetPublicKey on an RSA key for signing."
            )
        return answer
