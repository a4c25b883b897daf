"""Every other provider, through LiteLLM: loaded at first use, behind the egress guard, with OpenAI's shapes outside."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from bonito.egress.client import EgressClient
from bonito.errors import BonitoError, InvalidRequest, ModelNotFound, ProviderFailed, ProviderTimeout, RateLimited
from bonito.providers.answers import GeneratedResponse, whole
from bonito.providers.base import ProviderRequest
from bonito.providers.refusals import is_unknown_model, refusal, safe_message, upstream_message
from bonito.providers.sse import DONE, encode

if TYPE_CHECKING:
    from bonito.providers.litellm_transport import Call

# Vendors of which a test shows that their requests pass the guard; LiteLLM knows more, some with a way around it.
VENDORS = frozenset(
    {"ai21_chat", "anthropic", "azure", "azure_ai", "baseten", "bedrock", "cerebras", "codestral", "cohere_chat"}
    | {"dashscope", "databricks", "deepinfra", "deepseek", "featherless_ai", "fireworks_ai", "friendliai", "gemini"}
    | {"github", "groq", "hosted_vllm", "hyperbolic", "lambda_ai", "meta_llama", "minimax", "mistral", "moonshot"}
    | {"nebius", "novita", "nscale", "nvidia_nim", "openai", "openrouter", "ovhcloud", "perplexity", "replicate"}
    | {
        "sambanova",
        "scaleway",
        "snowflake",
        "together_ai",
        "v0",
        "vercel_ai_gateway",
        "volcengine",
        "wandb",
        "xai",
        "zai",
    }
)
NEED_A_BASE_URL = frozenset({"azure", "azure_ai", "databricks", "hosted_vllm", "snowflake"})

# What a credential may hold, and what each value looks like. No addresses, profiles or roles: those would send the
# credential elsewhere, or use this process's own. A region becomes part of a host's name.
CREDENTIAL_FIELDS: Mapping[str, re.Pattern[str]] = {
    "api_key": re.compile(r"[\x21-\x7e]{1,4096}"),
    "api_version": re.compile(r"[\w.-]{1,40}", re.ASCII),
    "organization": re.compile(r"[\w.-]{1,100}", re.ASCII),
    "aws_access_key_id": re.compile(r"\w{1,128}", re.ASCII),
    "aws_secret_access_key": re.compile(r"[\w/+=]{1,256}", re.ASCII),
    "aws_session_token": re.compile(r"[\w/+=]{1,4096}", re.ASCII),
    "aws_region_name": re.compile(r"[a-z]{2}(?:-[a-z]+){1,3}-\d{1,2}"),
}
REQUIRED: Mapping[str, Sequence[str]] = {
    "bedrock": ("aws_access_key_id", "aws_secret_access_key", "aws_region_name"),
    "hosted_vllm": (),
}

# OpenAI's fields, and one of Anthropic's. All others are refused by name: among LiteLLM's own are addresses,
# credentials, mocks and fall-backs.
CHAT_FIELDS = frozenset(
    {"messages", "temperature", "top_p", "n", "stream_options", "stop", "max_tokens", "max_completion_tokens"}
    | {"presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs", "user", "seed", "functions"}
    | {
        "function_call",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "reasoning_effort",
        "verbosity",
    }
    | {
        "modalities",
        "audio",
        "prediction",
        "service_tier",
        "store",
        "safety_identifier",
        "prompt_cache_key",
        "thinking",
    }
)
EMBEDDING_FIELDS = frozenset({"input", "dimensions", "encoding_format", "user"})
MODEL_NAME = re.compile(r"(?!.*(?:\.\.|//|http))[A-Za-z0-9][\w.:/@+-]{0,255}", re.ASCII | re.IGNORECASE)

IDLE_TIMEOUT_S = 120.0
EXTRA = "pip install 'bonito[litellm]'"

_LOADING = threading.Lock()

LiteLLM = Any
"""The module and its models, which have no types that could be relied on."""


class LiteLLMProvider:
    """Provider over one of LiteLLM's vendors with one organization's credential.

    Its HTTP goes through the egress guard, whose checks and limits hold: also for a base URL of the customer's, also
    for what a message makes LiteLLM fetch. LiteLLM neither retries nor drops a parameter; one that the vendor does not
    know is an InvalidRequest.
    """

    def __init__(
        self,
        client: EgressClient,
        *,
        name: str,
        vendor: str,
        credential: Mapping[str, str],
        base_url: str | None = None,
        models: Sequence[str] = (),
        idle_timeout_s: float = IDLE_TIMEOUT_S,
    ) -> None:
        """Check what can be checked without loading LiteLLM.

        Args:
            client: the guard that all requests go through.
            name: the provider's name in its organization.
            vendor: LiteLLM's name of it, which leads its models: `anthropic`, `bedrock`.
            credential: by the names of CREDENTIAL_FIELDS.
            base_url: for vendors that have none of their own, or a proxy in front of one.
            models: what may be called, as the vendor names it; empty means what LiteLLM knows of.
            idle_timeout_s: the longest silence inside a body.

        Raises:
            InvalidRequest: an unknown vendor, or a credential that lacks something or holds something else.
            AddressNotAllowed: the base URL.
        """
        if vendor not in VENDORS:
            raise InvalidRequest(f"There is no provider {vendor[:60]!r}; known are {', '.join(sorted(VENDORS))}.")
        if base_url is None and vendor in NEED_A_BASE_URL:
            raise InvalidRequest(f"The provider {vendor} needs a base URL.", param="base_url")
        self.name = name
        self._client, self._vendor, self._models = client, vendor, tuple(models)
        self._idle_timeout_s = idle_timeout_s
        self._credential = _checked_credential(vendor, credential)
        self._secrets = tuple(
            value for field, value in self._credential.items() if field not in ("api_version", "aws_region_name")
        )
        if base_url is not None:
            self._credential["api_base"] = str(client.policy.parse(base_url).url)

    @property
    def base_url(self) -> str:
        """Where this provider is: its own address, or the vendor's."""
        return self._credential.get("api_base") or f"litellm:{self._vendor}"

    async def call(self, request: ProviderRequest) -> GeneratedResponse:
        """Translate, send, and wait for the first piece; the errors are those of `Provider.call`."""
        arguments = self._arguments(request)
        litellm = await _load_beside_the_loop(self.name)
        from bonito.providers.litellm_transport import CURRENT_CALL, Call

        call = Call(self._client, timeout_s=request.timeout_s, idle_timeout_s=self._idle_timeout_s)
        token = CURRENT_CALL.set(call)
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._answer(litellm, call, request, arguments)
        except TimeoutError as error:
            call.close()
            raise ProviderTimeout(f"The provider {self.name} did not answer in time.") from error
        except BaseException:
            call.close()
            raise
        finally:
            CURRENT_CALL.reset(token)

    async def models(self) -> list[str]:
        """The models that were configured, or else those that LiteLLM lists for the vendor; nobody is asked."""
        if self._models:
            return list(self._models)
        litellm = await _load_beside_the_loop(self.name)
        listed = litellm.models_by_provider.get(self._vendor, ())
        return sorted({str(model).removeprefix(f"{self._vendor}/") for model in listed})

    async def _answer(
        self,
        litellm: LiteLLM,
        call: Call,
        request: ProviderRequest,
        arguments: Mapping[str, Any],
    ) -> GeneratedResponse:
        try:
            if request.operation == "embeddings":
                answer = await litellm.aembedding(**arguments)
            else:
                answer = await litellm.acompletion(**arguments, stream=request.is_stream)
            if not request.is_stream:
                return GeneratedResponse("application/json", whole(_dump(answer)))
            # A vendor's refusal may come with the first piece only: it is waited for, so that it can be told by status.
            chunks = aiter(answer)
            first = await anext(chunks, None)
        except _openai_errors() as error:
            raise self._translated(error, call) from error
        return GeneratedResponse("text/event-stream", self._stream(first, chunks, call), on_close=call.close)

    async def _stream(self, first: LiteLLM, chunks: LiteLLM, call: Call) -> AsyncGenerator[bytes, None]:
        """The chunks as events."""
        try:
            chunk = first
            while chunk is not None:
                yield encode(_dump(chunk))
                try:
                    chunk = await anext(chunks, None)
                except _openai_errors() as error:
                    raise self._translated(error, call) from error
            yield DONE
        finally:
            call.close()

    def _arguments(self, request: ProviderRequest) -> dict[str, Any]:
        """What LiteLLM is called with: the caller's fields as they are, and ours."""
        fields = {"chat.completions": CHAT_FIELDS, "embeddings": EMBEDDING_FIELDS}.get(request.operation)
        if fields is None:
            raise InvalidRequest(f"The provider {self.name} has no operation {request.operation}.")
        try:
            body = json.loads(request.body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest("The body is not JSON.") from error
        if not isinstance(body, dict):
            raise InvalidRequest("The body is not a JSON object.")
        model = body.pop("model", None)
        if not isinstance(model, str) or not MODEL_NAME.fullmatch(model):
            raise InvalidRequest("model must be a name as the provider has it.", param="model")
        body.pop("stream", None)
        body = {field: value for field, value in body.items() if value is not None}
        for field in sorted(body.keys() - fields):
            raise InvalidRequest(f"The provider {self.name} cannot be sent {field[:60]!r}.", param=field[:60])
        _check_tools(body.get("tools"))
        required = "input" if request.operation == "embeddings" else "messages"
        if not body.get(required):
            raise InvalidRequest(f"{required} must not be empty.", param=required)
        ours = {"model": f"{self._vendor}/{model}", "timeout": request.timeout_s, "max_retries": 0, "num_retries": 0}
        return {**body, **self._credential, **ours}

    def _translated(self, error: Exception, call: Call) -> BonitoError:
        """What really happened: what the guard raised, what the provider answered, or what LiteLLM makes of it."""
        import openai

        if call.failure is not None:
            return call.failure
        if call.refusal is not None:
            return refusal(
                self.name,
                status=call.refusal.status,
                headers=call.refusal.headers,
                body=call.refusal.body,
                now=datetime.now(UTC),
                secrets=self._secrets,
            )
        message = safe_message(_own_words(str(error)), self._secrets)
        if isinstance(error, openai.APITimeoutError):
            return ProviderTimeout(f"The provider {self.name} did not answer in time.")
        if isinstance(error, openai.RateLimitError):
            return RateLimited(message)
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return ProviderFailed(f"The provider {self.name} refused the stored credential.")
        if isinstance(error, openai.NotFoundError) and is_unknown_model(404, message=message, code=None):
            return ModelNotFound(message, param="model")
        if isinstance(error, openai.BadRequestError | openai.NotFoundError | openai.UnprocessableEntityError):
            return InvalidRequest(message or f"The provider {self.name} refused the request.")
        return ProviderFailed(f"The provider {self.name} failed.")


async def _load_beside_the_loop(provider: str) -> LiteLLM:
    """LiteLLM, imported in a thread: it takes seconds of CPU the first time."""
    try:
        return await asyncio.to_thread(_load)
    except ImportError as error:
        raise ProviderFailed(f"The provider {provider} needs LiteLLM, which is not installed here: {EXTRA}.") from error


def _load() -> LiteLLM:
    with _LOADING:
        return _litellm()


@cache
def _litellm() -> LiteLLM:
    """Import and configure it for this process: no downloads, no .env file, no telemetry, no banners, no retries."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    os.environ["LITELLM_MODE"] = "PRODUCTION"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import litellm

    from bonito.providers import litellm_transport

    litellm.telemetry = False
    litellm.suppress_debug_info = True
    litellm.turn_off_message_logging = True
    litellm.drop_params = False
    litellm.modify_params = False
    litellm.num_retries = 0
    litellm_transport.install(litellm)
    return litellm


def _openai_errors() -> type[Exception]:
    """The root of LiteLLM's exceptions."""
    import openai

    return openai.OpenAIError


def _checked_credential(vendor: str, credential: Mapping[str, str]) -> dict[str, str]:
    """The fields that LiteLLM takes; without the required ones it would look for credentials of this process."""
    for field, value in credential.items():
        if field not in CREDENTIAL_FIELDS:
            raise InvalidRequest(f"The credential of {vendor} cannot hold {field[:60]!r}.", param="credential")
        if not CREDENTIAL_FIELDS[field].fullmatch(value):
            raise InvalidRequest(f"{field} of the credential does not look like one.", param="credential")
    missing = [field for field in REQUIRED.get(vendor, ("api_key",)) if not credential.get(field)]
    if missing:
        raise InvalidRequest(f"The credential of {vendor} lacks {' and '.join(missing)}.", param="credential")
    return dict(credential)


def _check_tools(tools: object) -> None:
    """Functions only: of the other kinds LiteLLM would run some itself."""
    if tools is None:
        return
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and tool.get("type") == "function" for tool in tools
    ):
        raise InvalidRequest("tools must be a list of functions.", param="tools")


def _own_words(text: str) -> str:
    """The provider's message inside one of LiteLLM's: `litellm.BadRequestError: AnthropicException - {…}`."""
    inside = text[text.find("{") : text.rfind("}") + 1] if "{" in text else ""
    return upstream_message(inside.encode(errors="replace")).message or re.sub(
        r"^(?:litellm\.)?\w+(?:Error|Exception): (?:\w+ - )?", "", text.split("\n")[0]
    )


def _dump(answer: LiteLLM) -> bytes:
    """JSON as OpenAI writes it: without the fields that LiteLLM adds empty, usage on a chunk without choices."""
    body: dict[str, Any] = answer.model_dump(mode="json", exclude_none=True)
    for choice in body.get("choices", ()):
        choice.setdefault("finish_reason", None)
        if "message" in choice:
            choice["message"].setdefault("content", None)
    if "usage" in body and all(
        choice.get("delta") == {} and not choice["finish_reason"] for choice in body.get("choices", ())
    ):
        body["choices"] = []
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
