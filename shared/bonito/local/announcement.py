"""What `bonito up` prints when it is ready: the addresses, the key, and a question that somebody can paste."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp

from bonito import __version__
from bonito.local.data_directory import Credentials

QUESTION = "How many vacation days do I get after five years of service?"

POLL_S = 0.5
OK = 200

READY = """
Bonito {version} is ready.

    gateway   {gateway_url}
    console   {api_url}/api
    key       {key}
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

ASK_AGAIN = """
Ask the demo handbook (examples/handbook):

    bonito chat --kb {demo} "{question}"
"""

ANSWERED = """
It answers:

{answer}

    from {document}, page {page}, section {section}
"""

STOP = "\nCtrl-C stops everything.\n"


def text(credentials: Credentials, kept_in: Path, *, demo: str | None, shows_key: bool) -> str:
    """What to print; with a question where there is a demo knowledge base to ask.

    Args:
        credentials: of this deployment.
        kept_in: the file that holds them.
        demo: the name of the demo knowledge base.
        shows_key: this is the start that made the key; later ones only say where it is.
    """
    asking = ASK if shows_key else ASK_AGAIN
    return (READY + (asking if demo else "") + STOP).format(
        version=__version__,
        gateway_url=credentials.gateway_url,
        api_url=credentials.api_url,
        key=credentials.gateway_key if shows_key else f"in {kept_in}",
        gateway_key=credentials.gateway_key,
        directory=kept_in.parent,
        demo=demo,
        question=QUESTION,
    )


async def first_answer(credentials: Credentials, *, demo: str) -> str:
    """Ask the question above through the gateway once the demo knowledge base has been read; the text to print."""
    question = {
        "model": "local/extractive",
        "bonito": {"knowledge_base": demo},
        "messages": [{"role": "user", "content": QUESTION}],
    }
    async with aiohttp.ClientSession() as session:
        await _until_ready(session, credentials, demo)
        headers = {"authorization": f"Bearer {credentials.gateway_key}"}
        url = f"{credentials.gateway_url}/chat/completions"
        async with session.post(url, json=question, headers=headers) as response:
            answer: dict[str, Any] = await response.json()
    if response.status != OK or not answer["bonito"]["sources"]:
        return ""
    source, content = answer["bonito"]["sources"][0], answer["choices"][0]["message"]["content"]
    indented = "\n".join(f"    {line}".rstrip() for line in content.splitlines())
    return ANSWERED.format(answer=indented, document=source["document"], page=source["page"], section=source["section"])


async def _until_ready(session: aiohttp.ClientSession, credentials: Credentials, name: str) -> None:
    url = f"{credentials.api_url}/api/knowledge-bases/{name}"
    headers = {"authorization": f"Bearer {credentials.personal_token}"}
    while True:
        async with session.get(url, headers=headers) as response:
            if response.status == OK and (await response.json())["status"] == "ready":
                return
        await asyncio.sleep(POLL_S)
