"""Every failure that Bonito raises on purpose, and what each means to an HTTP caller.

BonitoError                                                                                     500
    InvalidSettings, SchemaMismatch, UnsafeDatabaseRole, AlreadyRunning      the start of a process
    UnreadableSecret                                                                            500
    CallerError
        InvalidRequest                                                                          400
        AuthenticationFailed, InvalidSignature                                                  401
        PermissionDenied, TierLimit                                                            403
        NotFound, KnowledgeBaseNotFound, ModelNotFound                                          404
        MethodNotAllowed                                                                        405
        PayloadTooLarge                                                                         413
        UnsupportedMediaType                                                                    415
        AddressNotAllowed                                                                       400
    StateConflict, AlreadyExists, KnowledgeBaseNotReady                                         409
    LimitReached
        RateLimited                                                                             429
    DocumentError, UnsupportedDocument, DocumentTooLarge        ends as `error` on the document 422
    MalformedMessage                            ends where poison is kept, with its reason      500
    UpstreamError, AccessDenied
        ProviderFailed, WrongDimensions                                                         502
        KnowledgeBaseUnavailable, Overloaded                                                    503
        ProviderTimeout                                                                         504
"""

from __future__ import annotations

from typing import ClassVar


class BonitoError(Exception):
    """The message is for the caller: no SQL, path, key or upstream body. The cause is for the log.

    Attributes:
        code: stable, snake_case, unique in this module; what programs compare.
        status: the HTTP status on /v1 and /api.
        openai_type: the `type` of an error on /v1, as OpenAI's SDKs expect it.
        retryable: whether the same call may succeed later without a change.
    """

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    openai_type: ClassVar[str] = "server_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.retry_after_s = message, param, retry_after_s


class InvalidSettings(BonitoError):
    """A BONITO_* variable is unknown or has a wrong value; the process does not start."""

    code = "invalid_settings"


class SchemaMismatch(BonitoError):
    """The database's schema is older than the code, or too new for it."""

    code, status = "schema_mismatch", 503


class UnsafeDatabaseRole(BonitoError):
    """The runtime role owns tables or may bypass row-level security."""

    code = "unsafe_database_role"


class AlreadyRunning(BonitoError):
    """Another process serves this data directory."""

    code = "already_running"


class UnreadableSecret(BonitoError):
    """A stored secret does not open: its key is not in the keyring, or the row was changed or moved."""

    code = "unreadable_secret"


class CallerError(BonitoError):
    """The caller can mend it by changing the request."""

    code, status, openai_type = "caller_error", 400, "invalid_request_error"


class InvalidRequest(CallerError):
    """A field is missing, unknown where unknown ones are refused, or has a wrong value; `param` names it."""

    code = "invalid_request_error"


class AddressNotAllowed(CallerError):
    """The egress guard refuses the address: not public and not in BONITO_EGRESS_ALLOW, or not http(s)."""

    code = "address_not_allowed"


class AuthenticationFailed(CallerError):
    """No key, or one that is unknown, expired or revoked."""

    code, status = "invalid_api_key", 401


class InvalidSignature(CallerError):
    """A webhook's delivery: the webhook is unknown, or the signature is not its own, or is too old."""

    code, status = "invalid_signature", 401


class PermissionDenied(CallerError):
    """The caller is known and lacks the role that the route declares."""

    code, status = "permission_denied", 403


class TierLimit(CallerError):
    """The organization's tier does not allow it; `required_tier` names the least that does."""

    code, status = "tier_limit", 403

    def __init__(self, message: str, *, param: str | None = None, required_tier: str | None = None) -> None:
        super().__init__(message, param=param)
        self.required_tier = required_tier


class NotFound(CallerError):
    """There is no such thing, or it belongs to another organization: the two are not told apart."""

    code, status = "not_found", 404


class KnowledgeBaseNotFound(NotFound):
    """No knowledge base of that name or id that the caller may read."""

    code = "knowledge_base_not_found"


class ModelNotFound(NotFound):
    """No active provider of the organization has the model."""

    code = "model_not_found"


class PayloadTooLarge(CallerError):
    """The request's body or a file in it is above the limit that the message names."""

    code, status = "payload_too_large", 413


class MethodNotAllowed(CallerError):
    """The path exists, and not with this method; the Allow header lists those it has."""

    code, status = "method_not_allowed", 405


class UnsupportedMediaType(CallerError):
    """The request's body is of another type than the route reads."""

    code, status = "unsupported_media_type", 415


class StateConflict(BonitoError):
    """The thing exists and is in a state that does not allow the call."""

    code, status, openai_type = "state_conflict", 409, "invalid_request_error"


class AlreadyExists(StateConflict):
    """The name is taken."""

    code = "already_exists"


class KnowledgeBaseNotReady(StateConflict):
    """The knowledge base serves nothing yet: its first sync has not ended."""

    code, retryable = "knowledge_base_not_ready", True


class LimitReached(BonitoError):
    """A limit or a budget does not leave room for the call."""

    code, status, openai_type = "limit_reached", 429, "rate_limit_error"


class RateLimited(LimitReached):
    """Too many requests or tokens, here or at the provider; `retry_after_s` says when to come back."""

    code, openai_type, retryable = "rate_limit_exceeded", "rate_limit_error", True


class DocumentError(BonitoError):
    """The document cannot be read; the message ends up on the document, for a person."""

    code, status, openai_type = "document_error", 422, "invalid_request_error"


class UnsupportedDocument(DocumentError):
    """No parser for this content."""

    code = "unsupported_document"


class DocumentTooLarge(DocumentError):
    """The document is above a limit of bytes, pages, time, memory or decompressed size; the message names it."""

    code = "document_too_large"


class MalformedMessage(BonitoError):
    """A notification or message that no version of its sender's documentation allows; trying again cannot help."""

    code = "malformed_message"


class UpstreamError(BonitoError):
    """Something that Bonito depends on failed."""

    code, status, openai_type, retryable = "upstream_unavailable", 502, "upstream_error", True


class AccessDenied(UpstreamError):
    """A customer's account, bucket, key or secret refuses us; the message says what is missing there."""

    code = "access_denied"


class ProviderFailed(UpstreamError):
    """The provider answered with an error of its own, or with something that is no answer."""

    code = "upstream_error"


class WrongDimensions(ProviderFailed):
    """The embedding model answers vectors of a length that cannot be compared or indexed: no retry mends that."""

    code, retryable = "wrong_dimensions", False


class KnowledgeBaseUnavailable(UpstreamError):
    """Retrieval failed: the database or the embedding model did not answer."""

    code, status = "knowledge_base_unavailable", 503


class Overloaded(UpstreamError):
    """There is no room for it now: a waiting pool is full, the deadline passed, or a limit that was set is reached."""

    code, status, openai_type = "overloaded", 503, "server_error"


class ProviderTimeout(UpstreamError):
    """The provider did not answer within the deadline."""

    code, status = "upstream_timeout", 504


def openai_body(error: BonitoError) -> dict[str, object]:
    """The body of an error on /v1, in OpenAI's shape."""
    return {"error": {"message": error.message, "type": error.openai_type, "param": error.param, "code": error.code}}


def problem_details(error: BonitoError) -> dict[str, object]:
    """The body of an error on /api: RFC 9457, with a stable `code`."""
    title = error.code.replace("_", " ").capitalize()
    body: dict[str, object] = {"type": "about:blank", "title": title, "status": error.status, "code": error.code}
    body |= {"detail": error.message} | ({"param": error.param} if error.param else {})
    if isinstance(error, TierLimit) and error.required_tier:
        body["required_tier"] = error.required_tier
    return body
