"""What Azure Storage refuses, in a sentence for the person who set it up; and how often it is asked before that.

The codes are those of "Blob Storage error codes" and "Common REST API error codes"
(https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and …/common-rest-api-error-codes).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bonito.errors import AccessDenied, BonitoError, DocumentError, NotFound, UpstreamError

if TYPE_CHECKING:
    from azure.core.exceptions import AzureError

# {account} and {container} are filled in. What is behind a code is for the person, not a program, to mend.
DENIED = {
    "ContainerNotFound": "There is no container {container} in the storage account {account}.",
    "ContainerBeingDeleted": "The container {container} of the storage account {account} is being deleted.",
    "AccountIsDisabled": "The storage account {account} is disabled.",
    "AuthorizationPermissionMismatch": (
        "The container {container} of the storage account {account} may not be read and listed: an identity needs the "
        "role Storage Blob Data Reader there, which takes some minutes to have effect, a signature both permissions."
    ),
    "AuthorizationFailure": (
        "The storage account {account} refuses us: its network rules do not let us in, or the signature or identity "
        "does not allow this."
    ),
    "AuthorizationSourceIPMismatch": "The shared access signature for {account} does not allow our address.",
    "AuthorizationProtocolMismatch": "The shared access signature for {account} does not allow this protocol.",
    "AuthorizationResourceTypeMismatch": (
        "The shared access signature for {account} does not allow this kind of resource: it must cover containers "
        "and objects."
    ),
    "AuthorizationServiceMismatch": "The shared access signature for {account} does not cover Blob Storage.",
    "AuthenticationFailed": (
        "The storage account {account} does not accept the credential: the key is another one, or the signature is "
        "wrong or has expired."
    ),
    "InvalidAuthenticationInfo": (
        "The storage account {account} does not accept the token: it is of another tenant, or has expired."
    ),
    "NoAuthenticationInformation": "The storage account {account} allows nothing without a credential.",
    "KeyBasedAuthenticationNotPermitted": "The storage account {account} does not allow access by its key.",
    "InsufficientAccountPermissions": "The identity has not the permissions that this needs in {account}.",
    "PublicAccessNotPermitted": "The storage account {account} allows no public access.",
    "KeyVaultAccessTokenCannotBeAcquired": (
        "The storage account {account} is encrypted with a key of its owner, and its identity is not let into the "
        "key vault."
    ),
    "KeyVaultEncryptionKeyNotFound": (
        "The storage account {account} is encrypted with a key of its owner, which is not in the key vault any more "
        "or may not be used."
    ),
    "KeyVaultVaultNotFound": (
        "The storage account {account} is encrypted with a key of its owner, whose key vault is not there any more."
    ),
}
DOCUMENT = {
    "BlobArchived": "The blob is in the archive tier; move it to an online tier and it will be read.",
    "BlobBeingRehydrated": "The blob is on its way out of the archive tier, which takes hours; it will be read then.",
    "BlobUsesCustomerSpecifiedEncryption": "The blob is encrypted with a key that only its writer has.",
    "InvalidResourceName": "The blob's name is one that cannot be asked for.",
}
# The SDK's own pauses begin at 15 s, longer than a function should wait: a message that is put back waits cheaper.
RETRIES: dict[str, Any] = {"retry_total": 2, "initial_backoff": 1, "increment_base": 1, "random_jitter_range": 1}

GONE = frozenset({"BlobNotFound", "ResourceNotFound"})
BUSY = frozenset({"ServerBusy", "TooManyRequests", "OperationTimedOut"})
BUSY_PAUSE_S = 10.0


@contextmanager
def explained(*, account: str, container: str, key: str | None = None) -> Iterator[None]:
    """Raise what Azure answered as one of our errors.

    Args:
        account: the storage account.
        container: of the blob, or the name of a queue.
        key: the blob; None where a whole container is asked.
    """
    from azure.core.exceptions import AzureError

    try:
        yield
    except AzureError as error:
        raise _translated(error, account=account, container=container, key=key) from error


def code_of(error: AzureError) -> str:
    """Azure's own name of the failure; empty where there was no answer."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _translated(error: AzureError, *, account: str, container: str, key: str | None) -> BonitoError:
    from azure.core.exceptions import HttpResponseError, ServiceRequestError

    code = code_of(error)
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if code in GONE or (status == 404 and code not in DENIED):
        return NotFound(f"There is no blob {key}." if key else f"There is no {container} in {account}.")
    if code in DOCUMENT:
        return DocumentError(DOCUMENT[code])
    if code in DENIED:
        return AccessDenied(DENIED[code].format(account=account, container=container))
    if status in {401, 403}:
        why = f" ({code})" if code else ""
        return AccessDenied(f"The storage account {account} refuses access to {container}{why}.")
    if code in BUSY or status in {429, 503}:
        return UpstreamError(
            f"The storage account {account} is asked too much at the moment.", retry_after_s=_retry_after_s(error)
        )
    if isinstance(error, ServiceRequestError):
        return UpstreamError(f"The storage account {account} cannot be reached; its name may be wrong.")
    if status is None:
        return UpstreamError(f"The storage account {account} broke off its answer.")
    return UpstreamError(f"The storage account {account} did not do its part (status {status}).")


def _retry_after_s(error: AzureError) -> float:
    response = getattr(error, "response", None)
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    return float(asked) if asked.isdigit() else BUSY_PAUSE_S
