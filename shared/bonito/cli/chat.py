"""`bonito chat`: a question through the gateway, as any application asks it."""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated, Any

import httpx
import typer

from bonito.cli.session import (
    CommandFailed,
    JsonOption,
    QuietOption,
    refusal,
    reporting_errors,
    saved_credentials,
    unreachable,
)

DEFAULT_MODEL = "local/extractive"
TIMEOUT = httpx.Timeout(600.0, connect=10.0)


def chat(
    question: Annotated[
        str | None, typer.Argument(help="One question; without it, a conversation until Ctrl-D.")
    ] = None,
    kb: Annotated[str | None, typer.Option(help="Answer from this knowledge base; * for all.")] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="provider/model; see `bonito models list`.")
    ] = DEFAULT_MODEL,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    gateway_url: Annotated[str | None, typer.Option(envvar="BONITO_GATEWAY_URL", help="Where /v1 is.")] = None,
    gateway_key: Annotated[str | None, typer.Option(envvar="BONITO_GATEWAY_KEY", help="A gateway key, bn-….")] = None,
) -> None:
    """Ask a model, with citations from a knowledge base."""
    reporting_errors(_chat)(question, kb, model, as_json, quiet, gateway_url, gateway_key)


def _chat(
    question: str | None, kb: str | None, model: str, as_json: bool, quiet: bool, url: str | None, key: str | None
) -> None:
    known = saved_credentials()
    base_url = (url or known.get("gateway_url") or "http://127.0.0.1:8000/v1").rstrip("/")
    key = key or known.get("gateway_key")
    if not key:
        raise CommandFailed(
            "No gateway key: set BONITO_GATEWAY_KEY, or run where `bonito up` keeps its data (BONITO_DATA_DIR)."
        )
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=base_url, headers=headers, timeout=TIMEOUT, trust_env=False) as client:
        try:
            if question is not None:
                _ask(client, [{"role": "user", "content": question}], kb, model, as_json=as_json, quiet=quiet)
            elif as_json:
                raise CommandFailed("A conversation has no JSON form: give one question.")
            else:
                _converse(client, kb, model, quiet=quiet)
        except httpx.HTTPError as error:
            raise CommandFailed(unreachable(base_url, error)) from error


def _converse(client: httpx.Client, kb: str | None, model: str, *, quiet: bool) -> None:
    messages: list[dict[str, str]] = []
    while True:
        try:
            question = input("> " if sys.stdin.isatty() else "")
        except (EOFError, KeyboardInterrupt):
            return
        if question.strip():
            messages.append({"role": "user", "content": question})
            messages.append(
                {"role": "assistant", "content": _ask(client, messages, kb, model, as_json=False, quiet=quiet)}
            )


def _ask(
    client: httpx.Client, messages: list[dict[str, str]], kb: str | None, model: str, *, as_json: bool, quiet: bool
) -> str:
    body: dict[str, Any] = {"model": model, "messages": messages} | ({"bonito": {"knowledge_base": kb}} if kb else {})
    if as_json:
        response = client.post("/chat/completions", json=body)
        if response.is_error:
            raise CommandFailed(refusal(response))
        sys.stdout.write(json.dumps(response.json(), indent=2, ensure_ascii=False) + os.linesep)
        return ""
    said: list[str] = []
    citations: list[dict[str, Any]] = []
    with client.stream("POST", "/chat/completions", json=body | {"stream": True}) as response:
        if response.is_error:
            response.read()
            raise CommandFailed(refusal(response))
        for line in response.iter_lines():
            chunk = _chunk(line)
            citations = (chunk.get("bonito") or {}).get("sources") or citations
            for choice in chunk.get("choices") or ():
                piece = (choice.get("delta") or {}).get("content") or ""
                said.append(piece)
                sys.stdout.write("" if quiet else piece)
                sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n" + "".join(_citation(number, source) for number, source in enumerate(citations, start=1)))
    return "".join(said)


def _chunk(line: str) -> dict[str, Any]:
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return {}
    chunk: dict[str, Any] = json.loads(data)
    if "error" in chunk:
        raise CommandFailed(str(chunk["error"].get("message")))
    return chunk


def _citation(number: int, source: dict[str, Any]) -> str:
    page = f", p.{source['page']}" if source.get("page") else ""
    section = f", {source['section']}" if source.get("section") else ""
    return f"[{number}] {source['document']}{page}{section} ({source['relevance_score']:.2f})\n"
