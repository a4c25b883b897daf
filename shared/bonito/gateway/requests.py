"""Reads a request: what the gateway uses is checked, the rest goes to the provider as it came."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bonito.errors import InvalidRequest
from bonito.gateway.splicing import JsonObject, MalformedJson, parse_object, prepended
from bonito.metering.usage import Operation

if TYPE_CHECKING:
    from bonito.gateway.options import BonitoField

PRIVATE_FIELD = "bonito"
KNOWLEDGE_BASE_HEADER = "x-bonito-knowledge-base"
ALL: Literal["*"] = "*"
MAX_NAME_CHARS = 256
# What is read here; some providers' JSON parsers fold case, so a `Model` besides `model` would be read by them alone.
READ_HERE = frozenset({"model", "stream", "stream_options", "messages", "prompt", PRIVATE_FIELD})
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


@dataclass(frozen=True)
class RetrievalOptions:
    """Where to look, for what, and what to do when that fails.

    Attributes:
        knowledge_bases: names or ids as asked for, or `*` for all that the key may read.
        query: the text to search with.
    """

    knowledge_bases: tuple[str, ...] | Literal["*"]
    query: str
    options: BonitoField


@dataclass(frozen=True)
class GatewayRequest:
    """A request of any operation, and its own JSON.

    Attributes:
        wants_usage: the caller himself asked for the usage of a stream.
        retrieval: None where no knowledge base is asked for.
    """

    operation: Operation
    model: str
    is_stream: bool
    wants_usage: bool
    retrieval: RetrievalOptions | None
    body: JsonObject

    @property
    def has_unasked_usage(self) -> bool:
        """Whether the usage of a stream is asked of the provider although the caller did not ask."""
        return self.is_stream and not self.wants_usage

    def provider_body(self, *, model: str, context: str | None, asks_usage: bool = True) -> bytes:
        """The caller's JSON, byte for byte but for what must differ.

        Args:
            model: as the provider names it.
            context: the system message of the augmentation, in front of the caller's messages; None without.
            asks_usage: whether a stream's usage is asked for even when the caller did not.
        """
        edits: dict[str, str | None] = {PRIVATE_FIELD: None}
        if model != self.model:
            edits["model"] = json.dumps(model)
        if context is not None and self.operation == "chat.completions":
            message = json.dumps({"role": "system", "content": context}, ensure_ascii=False)
            edits["messages"] = prepended(self.body.source("messages"), message)
        elif context is not None:
            edits["prompt"] = json.dumps(f"{context}\n\n{self.body.value('prompt')}", ensure_ascii=True)
        if asks_usage and self.has_unasked_usage:
            edits["stream_options"] = self._options_with_usage()
        return self.body.edited(edits).encode()

    def _options_with_usage(self) -> str:
        """Usage is asked of the provider even when the caller did not, so that the request can be metered."""
        if self.body.value("stream_options") is None:
            return '{"include_usage":true}'
        return parse_object(self.body.source("stream_options")).edited({"include_usage": "true"})


def parse(body: bytes, *, operation: Operation, headers: Mapping[str, str]) -> GatewayRequest:
    """Read a request's body.

    Args:
        body: as it came.
        operation: which route it came by.
        headers: lower-case names.

    Raises:
        InvalidRequest: the body is not UTF-8 or not one JSON object, or a field that is used here is wrong; `param`
            names the field.
    """
    parsed = _parse_json(body)
    _check_spelling(parsed)
    model = parsed.value("model")
    if not isinstance(model, str) or not model or len(model) > MAX_NAME_CHARS or UNPRINTABLE.search(model):
        raise InvalidRequest("`model` must name a model, as `provider/model` or plainly `model`.", param="model")
    is_stream = operation != "embeddings" and _boolean(parsed, "stream")
    return GatewayRequest(
        operation=operation,
        model=model,
        is_stream=is_stream,
        wants_usage=is_stream and _wants_usage(parsed),
        retrieval=_retrieval(parsed, operation, headers),
        body=parsed,
    )


def _parse_json(body: bytes) -> JsonObject:
    try:
        return parse_object(body.decode())
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: byte {error.start} is wrong.") from None
    except MalformedJson as error:
        raise InvalidRequest(f"The body must be one JSON object; {error}.") from None


def _check_spelling(body: JsonObject) -> None:
    for name in body.members:
        if name not in READ_HERE and name.casefold() in READ_HERE:
            raise InvalidRequest(f"Unknown field {name!r}: did you mean {name.casefold()!r}?", param=name.casefold())


def _boolean(body: JsonObject, name: str) -> bool:
    value = body.value(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise InvalidRequest(f"`{name}` must be true or false.", param=name)


def _wants_usage(body: JsonObject) -> bool:
    options = body.value("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise InvalidRequest("`stream_options` must be an object.", param="stream_options")
    try:
        return _boolean(parse_object(body.source("stream_options")), "include_usage")
    except MalformedJson as error:
        raise InvalidRequest(f"`stream_options` is wrong: {error}.", param="stream_options") from None


def _retrieval(body: JsonObject, operation: Operation, headers: Mapping[str, str]) -> RetrievalOptions | None:
    """What to retrieve; the header wins over the body."""
    header = headers.get(KNOWLEDGE_BASE_HEADER)
    if body.value(PRIVATE_FIELD) is None and header is None:
        return None
    from bonito.gateway import options  # pydantic's models take their time: with the first request that needs one

    field = options.read(body.source(PRIVATE_FIELD)) if body.value(PRIVATE_FIELD) is not None else options.BonitoField()
    if operation == "embeddings":  # a client may send the header with everything; in the body it is a mistake
        if field.knowledge_base is not None:
            raise InvalidRequest("Embeddings are made without a knowledge base.", param="bonito.knowledge_base")
        return None
    names = field.names if header is None else options.names_in_header(header)
    if not names:
        return None
    query = _last_question(body) if operation == "chat.completions" else _prompt(body)
    return RetrievalOptions(ALL if ALL in names else tuple(dict.fromkeys(names)), query, field)


def _last_question(body: JsonObject) -> str:
    """The text of the last user message that has any: what a knowledge base is searched with.

    Earlier turns are left out: the newest question decides. A message of images alone is passed over.
    """
    messages = body.value("messages")
    newest_first: list[object] = messages[::-1] if isinstance(messages, list) else []
    for message in newest_first:
        if isinstance(message, dict) and message.get("role") == "user":
            text = _text(message.get("content"))
            if text:
                return text
    raise InvalidRequest(
        "A knowledge base is searched with the last user message, and none has text.", param="messages"
    )


def _prompt(body: JsonObject) -> str:
    prompt = body.value("prompt")
    text = _searchable(prompt) if isinstance(prompt, str) else ""
    if not text:
        raise InvalidRequest("A knowledge base needs one `prompt`, as text.", param="prompt")
    return text


def _text(content: object) -> str:
    """A message's content as plain text; content parts that are text are joined by line ends."""
    if isinstance(content, str):
        return _searchable(content)
    parts = content if isinstance(content, list) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return _searchable("\n".join(text for text in texts if isinstance(text, str)))


def _searchable(text: str) -> str:
    """Without what neither Postgres nor an embedding model can hold: NUL and halves of surrogate pairs."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", " ").strip()
