"""What a provider's refusal means: its status and body as one typed error, with nothing secret in the message."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from bonito.errors import BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, RateLimited

MAX_MESSAGE_CHARS = 500
MAX_PARAM_CHARS = 100
MAX_RETRY_AFTER_S = 86_400.0
REMOVED = "[removed]"
# Credentials as the vendors shape them: OpenAI's and their imitators', Google's, AWS's, JWTs and bearer headers.
CREDENTIALS = re.compile(
    r"\b(?:sk|pk|rk|bn|rt|bt|bp|gsk|xai|nvapi|pplx|org|proj)[-_][\w*.-]{6,}|\bhf_\w{8,}|\bAIza[\w-]{20,}"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{12,}|\beyJ[\w-]+\.[\w-]+\.[\w-]*|\bBearer\s+[^\s'\"]{6,}",
    re.IGNORECASE,
)
# How vendors say that a model is not there: OpenAI and Groq, Azure. OpenAI's may come with 403, for a model that the
# project has no access to. Others answer 404 with a sentence only, as they do for a path that they do not have.
UNKNOWN_MODEL_CODES = frozenset({"model_not_found", "DeploymentNotFound"})
NAMES_A_MODEL = re.compile(r"\bmodels?\b|\bdeployment\b", re.IGNORECASE)
NOT_PRINTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]+")


def refusal(
    provider: str,
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    now: datetime,
    secrets: Iterable[str] = (),
) -> BonitoError:
    """The error that an answer with this status stands for.

    Args:
        provider: its name in the organization, for the message.
        status: of HTTP, no success.
        headers: by lower-case name.
        body: as far as it was read.
        now: aware, for a Retry-After that is a date.
        secrets: what must not appear in a message, whatever it looks like.
    """
    message, param, code = upstream_message(body)
    message = safe_message(message, secrets)
    wait_s = retry_after_s(headers, now=now)
    if status == 429:
        return RateLimited(message or f"The provider {provider} limits the rate of requests.", retry_after_s=wait_s)
    if is_unknown_model(status, message=message, code=code):
        return ModelNotFound(message or f"The provider {provider} has no such model.", param="model")
    if status in (401, 403):
        return ProviderFailed(f"The provider {provider} refused the stored credential (its status is {status}).")
    if status == 413 or (status in (400, 404, 422) and message):
        return InvalidRequest(message or f"The request is too large for the provider {provider}.", param=param)
    if status in (400, 404, 422):
        return ProviderFailed(f"The provider {provider} answered {status} without an error that can be read.")
    if status == 402:
        return ProviderFailed(f"The provider {provider} asks for a payment (its status is 402).")
    return ProviderFailed(f"The provider {provider} failed (its status is {status}).", retry_after_s=wait_s)


def is_unknown_model(status: int, *, message: str, code: str | None) -> bool:
    """Whether a refusal says that the provider does not have the model, rather than another thing or the path."""
    if status in (400, 403, 404) and code in UNKNOWN_MODEL_CODES:
        return True
    return status == 404 and NAMES_A_MODEL.search(message) is not None


class UpstreamMessage(NamedTuple):
    """What an error body says; "" and None where it says nothing."""

    message: str = ""
    param: str | None = None
    code: str | None = None


def upstream_message(body: bytes) -> UpstreamMessage:
    """Read an error body in OpenAI's shape or an imitator's."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return UpstreamMessage()
    if isinstance(answer, list) and answer:  # Google's streams put the object into a list
        answer = answer[0]
    if not isinstance(answer, dict):
        return UpstreamMessage()
    error = answer.get("error", answer)
    if isinstance(error, str):
        return UpstreamMessage(error)
    if not isinstance(error, dict):
        return UpstreamMessage()
    param, code = error.get("param"), error.get("code")
    param = param[:MAX_PARAM_CHARS] if isinstance(param, str) and param.isprintable() and param else None
    return UpstreamMessage(_sentence(error), param, code if isinstance(code, str) else None)


def _sentence(error: Mapping[str, object]) -> str:
    for found in (error.get("message"), error.get("detail")):
        if isinstance(found, str):
            return found
        if isinstance(found, list):  # FastAPI's list of what is wrong
            return "; ".join(_problem(part) for part in found if isinstance(part, dict) and "msg" in part)
    return ""


def _problem(part: Mapping[str, object]) -> str:
    """One of FastAPI's problems: `stream_options: Extra inputs are not permitted`."""
    place = part.get("loc")
    names = [str(name) for name in place if name != "body"] if isinstance(place, list) else []
    return f"{'.'.join(names)}: {part['msg']}" if names else str(part["msg"])


def safe_message(text: str, secrets: Iterable[str] = ()) -> str:
    """One line of at most 500 characters without credentials and without characters that do not print."""
    text = text[: 20 * MAX_MESSAGE_CHARS]
    for secret in secrets:
        if secret:
            text = text.replace(secret, REMOVED)
    text = CREDENTIALS.sub(REMOVED, text)
    text = NOT_PRINTED.sub(" ", text).strip()
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"


def retry_after_s(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds to wait as the provider asks: `retry-after-ms`, or Retry-After as seconds or a date; None without."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if not value:
            continue
        try:
            wait_s = float(value) * unit_s
        except ValueError:
            wait_s = _until(value, now)
        if math.isfinite(wait_s):
            return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)
    return None


def _until(date: str, now: datetime) -> float:
    """Seconds until an HTTP date; not a number when it is none."""
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=now.tzinfo)).timestamp() - now.timestamp()
