"""What Cloud Storage's refusals mean, in sentences for the person who set up the source.

The texts are those of https://cloud.google.com/storage/docs/json_api/v1/status-codes and of Cloud KMS.
"""

from __future__ import annotations

import re

from bonito.clouds.gcp.api import Refused
from bonito.errors import AccessDenied, BonitoError, DocumentError, UpstreamError

PERMISSION = re.compile(r"\bstorage\.(?:objects|buckets)\.[a-zA-Z]+\b")
VERBS = {
    "storage.objects.get": "read objects",
    "storage.objects.list": "list objects",
    "storage.objects.create": "write objects",
    "storage.objects.delete": "delete objects",
}
OWN_KEY = re.compile(r"customer[- ]supplied|customer[- ]?encryption|CustomerEncryptionKey", re.IGNORECASE)
KMS = re.compile(r"\bKMS\b|cryptoKey", re.IGNORECASE)


def explained(refused: Refused, bucket: str, *, right: str) -> BonitoError:
    """The error for an answer that is not about a missing object.

    Args:
        refused: the answer.
        bucket: that was asked.
        right: what the call needed, such as `storage.objects.get`, where the answer does not say.
    """
    said = f"{refused.reason} {refused.text}"
    if OWN_KEY.search(said):
        return DocumentError("The object is encrypted with a key that only its owner has; it cannot be read.")
    if KMS.search(said):
        return AccessDenied(
            f"Cloud Storage may not use the Cloud KMS key that encrypts {bucket}: the key must be enabled, and the"
            " project's Cloud Storage service agent needs the role Cloud KMS CryptoKey Encrypter/Decrypter on it."
        )
    if "requester pays" in said or refused.reason == "userProjectMissing":
        return AccessDenied(f"The bucket {bucket} is set to requester pays; Bonito does not pay for reading it.")
    if refused.status == 401:
        return AccessDenied("Google Cloud does not accept the connection's credentials any more.")
    if refused.status == 403:
        return _forbidden(refused, said, bucket, right)
    if refused.status == 404:
        return AccessDenied(f"There is no bucket {bucket}, or it was deleted.")
    return UpstreamError(f"Cloud Storage refused the call ({refused.status}).")


def _forbidden(refused: Refused, said: str, bucket: str, right: str) -> BonitoError:
    if "vpcServiceControls" in said or "VPC Service Controls" in said:
        return AccessDenied(f"VPC Service Controls around {bucket} do not let the connection through.")
    if "billing" in said.lower():
        return AccessDenied(f"The project of the bucket {bucket} has no active billing account.")
    if "rateLimitExceeded" in said or "quotaExceeded" in said:
        return UpstreamError("Cloud Storage's quota for the project is used up.", retry_after_s=60.0)
    named = PERMISSION.search(refused.text)
    permission = named.group() if named else right
    return AccessDenied(
        f"The connection may not {VERBS.get(permission, 'do this')} in the bucket {bucket}: it lacks {permission}."
    )
