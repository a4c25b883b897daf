"""The private field `bonito` of a request's body, and the header that wins over it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

from bonito.errors import InvalidRequest
from bonito.gateway.splicing import MalformedJson, parse_object

MAX_NAME_CHARS = 256
MAX_KNOWLEDGE_BASES = 100

Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]


class BonitoField(BaseModel):
    """What a caller says about retrieval; it never reaches a provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    knowledge_base: Name | Annotated[list[Name], Field(min_length=1, max_length=MAX_KNOWLEDGE_BASES)] | None = None
    top_k: Annotated[StrictInt, Field(ge=1, le=100)] = 5
    min_score: Annotated[StrictFloat, Field(ge=0, le=1)] = 0.0
    filter: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["hybrid", "vector", "keyword"] = "hybrid"
    on_error: Literal["fail", "continue"] = "fail"

    @property
    def names(self) -> tuple[str, ...]:
        """The knowledge bases that are asked for; none where there are none."""
        asked = self.knowledge_base
        return () if asked is None else (asked,) if isinstance(asked, str) else tuple(asked)


def read(source: str) -> BonitoField:
    """Read the field's JSON; InvalidRequest, whose `param` is `bonito.top_k` and the like."""
    try:
        parse_object(source)
        return BonitoField.model_validate_json(source)
    except MalformedJson:
        raise InvalidRequest("`bonito` must be an object without repeated names.", param="bonito") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        # The location goes on behind a list or a union's member: the field's own name is what the caller knows.
        param = ".".join(["bonito", *(str(part) for part in first["loc"][:1])])
        message = "is not known" if first["type"] == "extra_forbidden" else first["msg"][:1].lower() + first["msg"][1:]
        raise InvalidRequest(f"`{param}`: {message}.", param=param) from None


def names_in_header(header: str) -> tuple[str, ...]:
    """The names in X-Bonito-Knowledge-Base: one, several with commas between them, or `*`; InvalidRequest."""
    names = tuple(name.strip() for name in header.split(","))
    if not all(names) or len(names) > MAX_KNOWLEDGE_BASES or len(header) > MAX_KNOWLEDGE_BASES * MAX_NAME_CHARS:
        raise InvalidRequest(
            "X-Bonito-Knowledge-Base holds one name, several with commas between them, or *.",
            param="X-Bonito-Knowledge-Base",
        )
    return names
