"""What `bonito up` prints when it is ready: the addresses, the key, and a question that somebody can paste."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from bonito import __version__
from bonito.local.data_directory import Credentials

QUESTION = "How many vacation days do I get after five years of service?"

# The document that holds the answer; the demo is read file by file.
ANSWERED_BY = "employee-handbook.pdf"
POLL_S = 0.5

READY = """
Bonito {version} is ready.

    gateway   {gateway_url}
    console   {api_url}/api
    key       {gateway_key}
    data      {directory}
"""

ASK = """
Ask the demo handbook (examples/handbook). From a shell:

    curl {gateway_url}/chat/completions \\
      -H "Authorization: Bearer {gateway_key}" -H "Content-Type: application/json" \\
      -d '{{"model": "local/extractive", "bonito": {{"knowledge_base": "{demo}"}},
           "messages": [{{"role": "user", "content": "{question}"}}]}}'

From Python, with the unmodified SDK:

    from openai import OpenAI

    client = OpenAI(base_url="{gateway_url}", api_key="{gateway_key}")
    answer = client.chat.completions.create(
        model="local/extractive",
        messages=[{{"role": "user", "content": "{question}"}}],
        extra_body={{"bonito": {{"knowledge_base": "{demo}"}}}},
    )
    print(answer.choices[0].message.content)
"""

ANSWERED = """
It answers:

{answer}

    from {sources}
"""

STOP = "\nCtrl-C stops everything.\n"


def text(credentials: Credentials, directory: Path, *, demo: str | None) -> str:
    """What to print; with a question where there is a demo knowledge base to ask."""
    return (READY + (ASK if demo else "") + STOP).format(
        version=__version__,
        gateway_url=credentials.gateway_url,
        api_url=credentials.api_url,
        gateway_key=credentials.gateway_key,
        directory=directory,
        demo=demo,
        question=QUESTION,
    )


async def first_answer(credentials: Credentials, *, demo: str) -> str:
    """Ask the question above through the gateway, as soon as the demo knowledge base can answer; the text to print."""
    headers = {"authorization": f"Bearer {credentials.gateway_key}"}
    question = {
        "model": "local/extractive",
        "bonito": {"knowledge_base": demo},
        "messages": [{"role": "user", "content": QUESTION}],
    }
    async with aiohttp.ClientSession(headers=headers) as session:
        while True:
            async with session.post(f"{credentials.gateway_url}/chat/completions", json=question) as response:
                answer: dict[str, Any] = await response.json()
            if _is_found(answer):
                sources = [f"{source['document']}, p.{source['page']}" for source in answer["bonito"]["sources"][:1]]
                content: str = answer["choices"][0]["message"]["content"]
                indented = "\n".join(f"    {line}".rstrip() for line in content.splitlines())
                return ANSWERED.format(answer=indented, sources="; ".join(sources))
            await asyncio.sleep(POLL_S)


def _is_found(answer: dict[str, Any]) -> bool:
    """Whether the document with the answer has been read; others may have been read before it."""
    sources = (answer.get("bonito") or {}).get("sources") or ()
    return any(source["document"] == ANSWERED_BY for source in sources)
