"""What somebody sees who has never seen Bonito: `make run`, and the unmodified OpenAI SDKs answer from the handbook."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path

import openai
import pytest

from tests.acceptance.conftest import Bonito, client

QUESTION = "How many vacation days do I get after five years of service?"
NODE = Path(__file__).parent / "node"


def test_the_answer_cites_document_page_and_section(demo: Bonito) -> None:
    with client(demo) as sdk:
        answer = sdk.chat.completions.create(
            model="local/extractive",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"bonito": {"knowledge_base": "handbook"}},
        )

    bonito = answer.model_extra["bonito"]  # type: ignore[index]
    assert "28 vacation days" in answer.choices[0].message.content
    assert (bonito["sources"][0]["document"], bonito["sources"][0]["page"]) == ("employee-handbook.pdf", 3)
    assert bonito["sources"][0]["section"] == "Leave"
    assert bonito["retrieval"] == {"status": "ok"}
    assert (bonito["cost"], bonito["retrieval_cost"], bonito["inference_cost"]) == (0, 0, 0)


def test_a_stream_by_header_says_the_same(demo: Bonito) -> None:
    with client(demo) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="local/extractive",
                messages=[{"role": "user", "content": QUESTION}],
                stream=True,
                extra_headers={"X-Bonito-Knowledge-Base": "handbook"},
            )
        )

    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    first, last = chunks[0].model_extra["bonito"], chunks[-1].model_extra["bonito"]  # type: ignore[index]
    assert "28 vacation days" in text
    assert first["sources"][0]["document"] == "employee-handbook.pdf"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert last["cost"] == 0


@pytest.mark.needs("node")
@pytest.mark.needs("npm")
def test_the_node_sdk_gets_the_same_answers(demo: Bonito) -> None:
    assert (NODE / "node_modules").exists(), "`make test` installs the SDK with npm ci"
    known = demo.credentials
    command = ["node", "ask.mjs", known["gateway_url"], known["gateway_key"], "handbook", QUESTION]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=300, check=True)

    answer = json.loads(done.stdout)
    assert "28 vacation days" in answer["plain"]
    assert answer["streamed"] == answer["plain"]
    assert answer["sources"][0]["document"] == answer["streamedSources"][0]["document"] == "employee-handbook.pdf"


@pytest.mark.parametrize(
    ("question", "document", "words"),
    [
        ("How much is the daily allowance for Norway?", "travel-policy.docx", "75 euros"),
        ("Within how many hours must I report a stolen laptop?", "security-guidelines.md", "two hours"),
        ("What is the name of the VPN?", "it-faq.html", "Lighthouse"),
        ("Where is the assembly point of the Rotterdam office?", "fire-safety.txt", "quay"),
        ("What is the address of the office in Porto?", "office-locations.csv", "Rua do Almada"),
        ("How large is the learning budget?", "benefits.json", "1,500 euros"),
    ],
)
def test_each_type_of_document_answers(demo: Bonito, question: str, document: str, words: str) -> None:
    answer = demo.json("chat", "--kb", "handbook", question)

    assert words in answer["choices"][0]["message"]["content"]
    assert document in {source["document"] for source in answer["bonito"]["sources"][:2]}


def test_a_wrong_key_and_an_unknown_knowledge_base_raise_the_sdks_own_errors(demo: Bonito) -> None:
    known = demo.credentials
    messages = [{"role": "user", "content": QUESTION}]
    with (
        openai.OpenAI(base_url=known["gateway_url"], api_key="bn-wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as refused,
    ):
        stranger.chat.completions.create(model="local/extractive", messages=messages)  # type: ignore[arg-type]
    with client(demo) as sdk, pytest.raises(openai.NotFoundError) as unknown:
        sdk.chat.completions.create(
            model="local/extractive",
            messages=messages,  # type: ignore[arg-type]
            extra_body={"bonito": {"knowledge_base": "no-such-base"}},
        )

    assert refused.value.code == "invalid_api_key"
    assert unknown.value.code == "knowledge_base_not_found"


def test_credentials_are_for_their_owner_alone(demo: Bonito) -> None:
    assert stat.S_IMODE((demo.data_dir / "credentials.json").stat().st_mode) == 0o600


def test_the_start_prints_what_to_paste(demo: Bonito) -> None:
    printed = demo.log.read_text()

    assert "curl " in printed
    assert "from openai import OpenAI" in printed
    assert demo.credentials["gateway_key"] in printed


def test_a_second_process_on_the_same_directory_is_refused_in_one_line(demo: Bonito) -> None:
    refused = demo.cli("up", "--port", "0", status=1)

    assert "Another `bonito up`" in refused
    assert refused.count("\n") == 1


def test_an_unknown_setting_stops_the_start_in_one_line(demo: Bonito) -> None:
    other = Bonito(demo.directory / "other", environment={"BONITO_DATBASE_URL": "x"})
    (demo.directory / "other").mkdir(exist_ok=True)

    refused = other.cli("up", "--port", "0", status=1)

    assert "BONITO_DATBASE_URL is not a setting" in refused
    assert refused.count("\n") == 1
