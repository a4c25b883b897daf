"""`local/extractive`: answers by quoting the sources of a request; it is not a language model, and says so."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass

from bonito.errors import InvalidRequest
from bonito.providers.answers import GeneratedResponse, whole
from bonito.providers.base import ProviderRequest
from bonito.providers.local.context import find_blocks
from bonito.providers.local.quoting import Quote, best_quotes
from bonito.providers.local.words import count_tokens, token_pieces
from bonito.providers.sse import DONE, encode

MODEL = "extractive"
MAX_BODY_BYTES_ON_LOOP = 64 * 1024  # larger requests are read in a thread
MAX_STOP_SEQUENCES = 4

USED_FIELDS = frozenset(
    {"model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop"}
)
# The same quotes come whatever these say: nothing is sampled, and the others do not concern the text.
FIELDS_WITHOUT_EFFECT = frozenset(
    {"temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls"}
    | {"user", "metadata", "safety_identifier", "prompt_cache_key"}
)
# Of every other field only the value that asks for nothing is taken; null and what is empty ask for nothing, too.
NEUTRAL_VALUES: Mapping[str, Sequence[object]] = {
    "n": [1],
    "tool_choice": ["none", "auto"],
    "function_call": ["none", "auto"],
    "logprobs": [False],
    "top_logprobs": [0],
    "store": [False],
    "response_format": [{"type": "text"}],
    "modalities": [["text"]],
    "service_tier": ["auto", "default"],
}

NO_LANGUAGE_MODEL = "This is an extractive answer: no language model wrote it."
QUOTED = "The sentences above are quoted from"
NO_ANSWER = (
    "The context does not hold an answer to this question, as far as its words tell. Words are all that"
    f" local/{MODEL} compares: it is not a language model."
)
NO_CONTEXT = (
    f"local/{MODEL} is not a language model: it can only quote documents, and this request came without any. Name a"
    ' knowledge base, with "bonito": {"knowledge_base": "…"} in the body or the header X-Bonito-Knowledge-Base, or add'
    " a provider of language models with `bonito providers add`."
)


@dataclass(frozen=True)
class _Ask:
    """A chat request, checked."""

    model: str
    question: str
    system_messages: tuple[str, ...]
    prompt_tokens: int
    max_tokens: int | None
    stop: tuple[str, ...]
    includes_usage: bool


@dataclass(frozen=True)
class _Answer:
    """What is said, in the pieces of a stream, and why it ends there."""

    model: str
    pieces: tuple[str, ...]
    finish_reason: str
    usage: Mapping[str, int]


class ExtractiveProvider:
    """Provider in this process: quotes up to three sentences of the context, with their numbers.

    The context is what Bonito's augmentation wrote into the first system message; token counts are approximate, as
    `words.token_pieces` says. A field that cannot be honoured is refused, not dropped.
    """

    def __init__(
        self,
        *,
        name: str = "local",
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self.name = name
        self._clock, self._new_id = clock, new_id

    async def call(self, request: ProviderRequest) -> GeneratedResponse:
        """Answer a chat request; InvalidRequest names the field that is wrong or cannot be honoured."""
        if request.operation != "chat.completions":
            raise InvalidRequest(f"local/{MODEL} answers chat completions only.", param="model")
        if len(request.body) > MAX_BODY_BYTES_ON_LOOP:
            ask, answer = await asyncio.to_thread(_answer, request.body)
        else:
            ask, answer = _answer(request.body)
        head = {"id": f"chatcmpl-{self._new_id()}", "created": int(self._clock()), "model": ask.model}
        if request.is_stream:
            return GeneratedResponse("text/event-stream", _stream(head, answer, includes_usage=ask.includes_usage))
        return GeneratedResponse("application/json", whole(_dump(_completion(head, answer))))

    async def models(self) -> list[str]:
        """The one model that is here."""
        return [MODEL]


def _answer(body: bytes) -> tuple[_Ask, _Answer]:
    ask = _checked(body)
    text = _text(ask)
    text, finish_reason = _stopped(text, ask.stop), "stop"
    pieces = token_pieces(text)
    tokens = 0
    kept: list[str] = []
    for piece, cost in pieces:
        if ask.max_tokens is not None and tokens + cost > ask.max_tokens:
            finish_reason = "length"
            break
        tokens += cost
        kept.append(piece)
    usage = {"prompt_tokens": ask.prompt_tokens, "completion_tokens": tokens}
    usage["total_tokens"] = sum(usage.values())
    return ask, _Answer(ask.model, tuple(kept), finish_reason, usage)


def _text(ask: _Ask) -> str:
    blocks = find_blocks(ask.system_messages)
    if blocks is None:
        return NO_CONTEXT
    quotes = best_quotes(ask.question, blocks)
    if not quotes:
        return NO_ANSWER
    lines = [f"“{quote.text}” [{quote.block.number}]" for quote in quotes]
    return "\n\n".join([*lines, f"{NO_LANGUAGE_MODEL} {QUOTED} {_sources(quotes)}."])


def _sources(quotes: Sequence[Quote]) -> str:
    named = dict.fromkeys(f"[{quote.block.number}] {quote.block.source}" for quote in quotes)
    return " and ".join(filter(None, [", ".join([*named][:-1]), [*named][-1]]))


def _stopped(text: str, stop: Sequence[str]) -> str:
    ends = [at for at in (text.find(sequence) for sequence in stop) if at >= 0]
    return text[: min(ends)] if ends else text


def _completion(head: Mapping[str, object], answer: _Answer) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(answer.pieces), "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return {**head, "object": "chat.completion", "choices": [choice], "usage": answer.usage}


async def _stream(head: Mapping[str, object], answer: _Answer, *, includes_usage: bool) -> AsyncGenerator[bytes, None]:
    """The chunks as OpenAI sends them: role, content, finish, usage where it was asked for, [DONE]."""
    base = {**head, "object": "chat.completion.chunk"} | ({"usage": None} if includes_usage else {})

    def chunk(delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return encode(_dump(base | {"choices": [choice]}))

    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in answer.pieces:
        yield chunk({"content": piece})
        await asyncio.sleep(0)  # the loop sees others in between, and a caller who hangs up
    yield chunk({}, answer.finish_reason)
    if includes_usage:
        yield encode(_dump(base | {"choices": [], "usage": answer.usage}))
    yield DONE


def _dump(value: Mapping[str, object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def _checked(body: bytes) -> _Ask:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("The body is not JSON.") from error
    if not isinstance(fields, dict):
        raise InvalidRequest("The body is not a JSON object.")
    _refuse_what_cannot_be_honoured(fields)
    messages = _messages(fields.get("messages"))
    questions = [text for role, text in messages if role == "user"]
    if not questions:
        raise InvalidRequest("There is no user message to answer.", param="messages")
    stream_options = fields.get("stream_options") or {}
    if not isinstance(stream_options, dict):
        raise InvalidRequest("stream_options must be an object.", param="stream_options")
    return _Ask(
        model=str(fields.get("model") or MODEL),
        question=questions[-1],
        system_messages=tuple(text for role, text in messages if role in ("system", "developer")),
        prompt_tokens=sum(count_tokens(text) for _, text in messages),
        max_tokens=_max_tokens(fields),
        stop=_stop_sequences(fields.get("stop")),
        includes_usage=stream_options.get("include_usage") is True,
    )


def _refuse_what_cannot_be_honoured(fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        if name in USED_FIELDS or name in FIELDS_WITHOUT_EFFECT or value is None or value in ([], {}, ""):
            continue
        # By type too: to Python, True equals 1 and 0 equals False.
        if not any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL_VALUES.get(name, ())):
            raise InvalidRequest(
                f"local/{MODEL} is not a language model and cannot honour {name[:60]!r}.", param=name[:60]
            )


def _messages(value: object) -> list[tuple[str, str]]:
    """Role and text of each message; only text can be read."""
    if not isinstance(value, list) or not value:
        raise InvalidRequest("messages must be a list of at least one message.", param="messages")
    found: list[tuple[str, str]] = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise InvalidRequest("Each message must be an object with a role.", param="messages")
        found.append((message["role"], _content(message.get("content"))))
    return found


def _content(content: object) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise InvalidRequest("The content of a message must be text or a list of parts.", param="messages")
    texts: list[str] = []
    for part in content:
        text = part.get("text", part.get("refusal")) if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise InvalidRequest(f"local/{MODEL} reads text only.", param="messages")
        texts.append(text)
    return "\n".join(texts)


def _max_tokens(fields: Mapping[str, object]) -> int | None:
    """The lower of the two limits that OpenAI's dialect has; None without."""
    limits: list[int] = []
    for name in ("max_tokens", "max_completion_tokens"):
        value = fields.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidRequest(f"{name} must be a whole number from 1 on.", param=name)
        limits.append(value)
    return min(limits, default=None)


def _stop_sequences(value: object) -> tuple[str, ...]:
    sequences = [value] if isinstance(value, str) else value or []
    if not isinstance(sequences, list) or len(sequences) > MAX_STOP_SEQUENCES:
        raise InvalidRequest(f"stop must be a text or a list of at most {MAX_STOP_SEQUENCES}.", param="stop")
    if not all(isinstance(sequence, str) for sequence in sequences):
        raise InvalidRequest("stop must be text.", param="stop")
    return tuple(sequence for sequence in sequences if sequence)
