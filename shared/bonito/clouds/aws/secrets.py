"""Secrets in AWS Secrets Manager, read by reference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bonito.clouds.access import AwsAccess
from bonito.clouds.aws.clients import open_client
from bonito.clouds.aws.failures import REFUSED, code_of, message_of, of_service, unanswered
from bonito.errors import AccessDenied, BonitoError, InvalidRequest, NotFound, UpstreamError

ARN = "arn:"


class SecretsManager:
    """SecretStore over Secrets Manager; a reference is a secret's ARN, or its name in the region of this process."""

    def __init__(self, *, access: AwsAccess | None, endpoint_url: str | None = None) -> None:
        """Nothing is asked yet.

        Args:
            access: a session in the account that holds the secrets; None: the rights of this process, for secrets
                of the deployment itself and never for one that a customer names.
            endpoint_url: of another Secrets Manager than AWS's.
        """
        self._access, self._endpoint_url = access, endpoint_url

    async def read(self, reference: str) -> str:
        """The secret's present value.

        Raises:
            InvalidRequest: the reference can be no secret's.
            NotFound: there is no such secret, or it is about to be deleted.
            AccessDenied: it, or the key that encrypts it, may not be used.
            UpstreamError: Secrets Manager does not answer, or the secret is no text.
        """
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        region = _region(reference)
        opening = open_client("secretsmanager", access=self._access, region=region, endpoint_url=self._endpoint_url)
        try:
            async with opening as client:
                answer = await client.get_secret_value(SecretId=reference)
        except ClientError as error:
            raise _explained(error.response) from error
        except ParamValidationError as error:
            raise InvalidRequest("A secret is named by its ARN or by its name.") from error
        except (BotoCoreError, TimeoutError) as error:
            raise unanswered(error, "Secrets Manager") from error
        value = answer.get("SecretString")
        if not isinstance(value, str):
            raise UpstreamError("The secret is no text.")
        return value


def _region(reference: str) -> str | None:
    """Of an ARN: `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`."""
    if not reference.startswith(ARN):
        return None
    parts = reference.split(":")
    if len(parts) < 7 or parts[2] != "secretsmanager" or not parts[3]:
        raise InvalidRequest("The ARN is not that of a secret in Secrets Manager.")
    return parts[3]


def _explained(response: Mapping[str, Any]) -> BonitoError:
    """What Secrets Manager refuses.

    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    """
    code, message = code_of(response), message_of(response)
    if code == "ResourceNotFoundException" or (code == "InvalidRequestException" and "delet" in message):
        return NotFound("There is no such secret in Secrets Manager, or it is about to be deleted.")
    if code == "DecryptionFailure" or (code in REFUSED and "kms" in message.lower()):
        return AccessDenied("The secret's KMS key may not be used; reading it needs kms:Decrypt.")
    if code in REFUSED:
        return AccessDenied("The secret may not be read; it needs secretsmanager:GetSecretValue.")
    if code in {"ValidationException", "InvalidParameterException"}:
        return InvalidRequest("A secret is named by its ARN or by its name.")
    return of_service(response, "Secrets Manager")
