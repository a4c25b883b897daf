"""AWS's refusals in our own words: what is missing, and who can mend it.

Codes of S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bonito.errors import AccessDenied, BonitoError, DocumentError, NotFound, Overloaded, UpstreamError

logger = logging.getLogger(__name__)

ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "KeyTooLongError"})
NO_BUCKET = frozenset({"NoSuchBucket", "InvalidBucketName", "NoSuchAccessPoint"})
WRONG_REGION = frozenset(
    {
        "PermanentRedirect",
        "TemporaryRedirect",
        "301",
        "307",
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraint",
    }
)
BAD_CREDENTIALS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidToken",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
        "UnrecognizedClientException",
    }
)
REFUSED = frozenset({"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "403"})
THROTTLED = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


@contextmanager
def explained_s3(bucket: str, *, right: str, key: str = "") -> Iterator[None]:
    """Raise what S3 refuses in a sentence for the person who set up the source.

    Args:
        bucket: the bucket.
        right: the IAM action that the call needs, such as `s3:GetObject`.
        key: the object, where the call is about one.
    """
    from aiohttp import ClientError as BrokenConnection
    from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

    try:
        yield
    except ClientError as error:
        raise _of_s3(error.response, bucket, right=right, key=key) from error
    except ParamValidationError as error:
        raise AccessDenied(f"{bucket!r} cannot be the name of a bucket.") from error
    except (BotoCoreError, BrokenConnection, TimeoutError) as error:
        raise unanswered(error, "S3") from error


def unanswered(error: Exception, service: str) -> UpstreamError:
    """The error for a call that AWS gave no readable answer to."""
    from botocore.exceptions import BotoCoreError, ConnectionError, HTTPClientError, NoCredentialsError

    if isinstance(error, NoCredentialsError):
        return AccessDenied(f"There are no credentials to ask {service} with.")
    if isinstance(error, BotoCoreError) and not isinstance(error, ConnectionError | HTTPClientError):
        return UpstreamError(f"{service} could not be asked, or what it answered not be read ({type(error).__name__}).")
    return UpstreamError(f"{service} did not answer ({type(error).__name__}).")


def of_service(response: Mapping[str, Any], service: str) -> BonitoError:
    """What every service refuses alike: throttled, not allowed, out of order."""
    code, status = code_of(response), _status(response)
    if code in THROTTLED or status in {429, 503}:
        return Overloaded(f"{service} asked for fewer requests.", retry_after_s=_retry_after_s(response))
    if code in BAD_CREDENTIALS:
        return AccessDenied(f"AWS does not accept the credentials that {service} was asked with ({code}).")
    if code in REFUSED:
        return AccessDenied(f"{service} does not allow the call; a right is missing ({code}).")
    return UpstreamError(f"{service} answered {status} ({code}).")


def _of_s3(response: Mapping[str, Any], bucket: str, *, right: str, key: str) -> BonitoError:
    code, message = code_of(response), message_of(response)
    if code in ABSENT:
        return NotFound(f"There is no object {key} in the bucket {bucket}.")
    if code in NO_BUCKET:
        return AccessDenied(f"The bucket {bucket} does not exist, or no longer.")
    if code == "InvalidObjectState":
        storage = response.get("Error", {}).get("StorageClass") or "an archive"
        return DocumentError(f"The object lies in {storage} and cannot be read until somebody restores it.")
    if code.startswith("KMS.") or "perform: kms:" in message or "ciphertext" in message:
        return AccessDenied(
            f"The object is encrypted with a KMS key that the connection may not use; it needs kms:Decrypt ({code})."
        )
    if code == "InvalidRequest" and "Server Side Encryption" in message:
        return DocumentError("The object is encrypted with a key of its owner's own (SSE-C); it cannot be read.")
    if code in WRONG_REGION:
        region = response.get("Error", {}).get("Region") or _header(response, "x-amz-bucket-region")
        where = f"the region {region}" if region else "another region"
        return AccessDenied(f"The bucket {bucket} lies in {where}; the source names a different one.")
    if code in REFUSED or (_status(response) == 403 and code not in BAD_CREDENTIALS):
        return AccessDenied(f"The connection may not read the bucket {bucket}: it needs {right} on it.")
    return of_service(response, "S3")


def code_of(response: Mapping[str, Any]) -> str:
    """The code of an error that AWS answered."""
    return str(response.get("Error", {}).get("Code", ""))


def message_of(response: Mapping[str, Any]) -> str:
    """The message of an error that AWS answered; it may name resources and is not for callers."""
    return str(response.get("Error", {}).get("Message", ""))


def _status(response: Mapping[str, Any]) -> int:
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _header(response: Mapping[str, Any], name: str) -> str | None:
    value = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name)
    return str(value) if value else None


def _retry_after_s(response: Mapping[str, Any]) -> float | None:
    value = _header(response, "retry-after") or ""
    return float(value) if value.isdigit() else None
