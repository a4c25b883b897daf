"""Other people's models: registered at the first start or by command, streamed through, hung up, and sealed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from tests.acceptance import provider
from tests.acceptance.conftest import BONITO, Bonito, client, eventually, wait_until_ready
from tests.stub_provider import StubProvider

FIRST_SECRET = "sk-canary-of-the-first-start-4711"
SECOND_SECRET = "sk-canary-from-stdin-0815"
QUESTION = "How many vacation days do I get?"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with provider.running() as running:
        yield running


@pytest.fixture(scope="module")
def bonito(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[Bonito]:
    """A deployment whose environment had OpenAI's variables at the first start; the tests' secrets are in it."""
    environment = {"OPENAI_API_KEY": FIRST_SECRET, "OPENAI_BASE_URL": stub.base_url}
    bonito = Bonito(tmp_path_factory.mktemp("providers"), ("--no-demo",), environment).start()
    add = ("providers", "add", "second", "--base-url", stub.base_url, "--api-key-stdin")
    bonito.said = bonito.cli(*add, "--json", stdin=f"{SECOND_SECRET}\n")
    document = bonito.directory / "leave.txt"
    document.write_text("Employees get twenty vacation days a year.")
    bonito.cli("kb", "create", "hr", "--embedding-model", "local/all-minilm-l6-v2")
    bonito.cli("kb", "upload", "hr", str(document))
    wait_until_ready(bonito, "hr", documents=1)
    yield bonito
    assert bonito.stop() == 0


def test_what_the_environment_names_at_the_first_start_is_there(bonito: Bonito, stub: StubProvider) -> None:
    providers = {each["name"]: each for each in bonito.json("providers", "list")}
    models = {model["id"] for model in bonito.json("models", "list")}

    assert set(providers) == {"local", "openai", "second"}
    assert (providers["openai"]["type"], providers["openai"]["base_url"]) == ("openai_compatible", stub.base_url)
    assert providers["openai"]["has_credential"]
    assert providers["second"]["verified_at"] is not None
    assert {"local/extractive", "second/gpt-4o"} <= models


@pytest.mark.parametrize(("name", "secret"), [("openai", FIRST_SECRET), ("second", SECOND_SECRET)])
def test_an_answer_has_citations_and_the_provider_its_key(
    bonito: Bonito, stub: StubProvider, name: str, secret: str
) -> None:
    with client(bonito) as sdk:
        answer = sdk.chat.completions.create(
            model=f"{name}/gpt-4o",
            messages=[{"role": "user", "content": QUESTION}],
            extra_body={"bonito": {"knowledge_base": "hr"}},
        )

    asked = stub.received[-1]
    said = answer.model_extra["bonito"]  # type: ignore[index]
    assert answer.choices[0].message.content == "Twenty days a year [1]."
    assert [source["document"] for source in said["sources"]] == ["leave.txt"]
    assert said["cost"] is None
    assert asked.headers["authorization"] == f"Bearer {secret}"
    assert "twenty vacation days" in asked.json()["messages"][0]["content"]
    assert asked.json()["messages"][-1] == {"role": "user", "content": QUESTION}
    assert "bonito" not in asked.json()


def test_a_stream_begins_with_citations_and_ends_with_the_cost(bonito: Bonito) -> None:
    with client(bonito) as sdk:
        chunks = list(
            sdk.chat.completions.create(
                model="openai/gpt-4o",
                messages=[{"role": "user", "content": QUESTION}],
                stream=True,
                extra_headers={"X-Bonito-Knowledge-Base": "hr"},
            )
        )

    first = chunks[0].model_extra["bonito"]  # type: ignore[index]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Twenty days a year [1]."
    assert first["sources"][0]["document"] == "leave.txt"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].model_extra["bonito"]["cost"] is None  # type: ignore[index]
    assert chunks[-1].usage is None


def test_the_chat_command_prints_the_answer_and_its_sources(bonito: Bonito) -> None:
    printed = bonito.cli("chat", "--kb", "hr", "-m", "second/gpt-4o", QUESTION)

    assert "Twenty days a year [1]." in printed
    assert "[1] leave.txt" in printed


def test_who_hangs_up_stops_the_provider(bonito: Bonito, stub: StubProvider) -> None:
    with client(bonito) as sdk:
        stream = sdk.chat.completions.create(
            model="openai/gated", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        next(iter(stream))
        stream.close()

    eventually(stub.hung_up.is_set, bool)


def test_a_provider_that_refuses_raises_the_sdks_own_errors(bonito: Bonito) -> None:
    with client(bonito) as sdk, pytest.raises(openai.RateLimitError) as refused:
        sdk.chat.completions.create(model="openai/status-429", messages=[{"role": "user", "content": QUESTION}])

    assert refused.value.response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("model", "dimensions"), [("local/all-minilm-l6-v2", 384), ("openai/text-embedding-3-small", 1536)]
)
def test_embeddings_come_from_here_and_from_a_provider(bonito: Bonito, model: str, dimensions: int) -> None:
    with client(bonito) as sdk:
        answer = sdk.embeddings.create(model=model, input=["one text", "and another"])

    assert [len(item.embedding) for item in answer.data] == [dimensions, dimensions]
    assert [item.index for item in answer.data] == [0, 1]


def test_a_knowledge_base_may_have_the_vectors_of_a_provider(bonito: Bonito) -> None:
    bonito.cli("kb", "create", "remote", "--embedding-model", "second/text-embedding-3-small")
    bonito.cli("kb", "upload", "remote", str(bonito.directory / "leave.txt"))
    wait_until_ready(bonito, "remote", documents=1)

    found = bonito.json("kb", "search", "remote", "vacation days", "--mode", "vector")

    assert bonito.json("kb", "info", "remote")["in_force"]["dimensions"] == 1536
    assert [result["document_name"] for result in found["results"]] == ["leave.txt"]


def test_secrets_are_in_no_answer_no_log_and_in_no_file_as_they_are(bonito: Bonito) -> None:
    provider_id = bonito.json("providers", "list")[1]["id"]
    with bonito.api() as api:
        answers = [bonito.said, api.get(f"/api/providers/{provider_id}").text, api.get("/api/audit-log").text]
        answers.append(api.get("/api/gateway/logs").text)
    answers += [bonito.cli("providers", "list"), bonito.cli("providers", "list", "--json"), bonito.log.read_text()]

    for secret in (FIRST_SECRET, SECOND_SECRET):
        assert not any(secret in answer for answer in answers)
        assert holders(bonito.data_dir, secret) == []


def test_a_key_given_as_an_argument_is_wrong_usage(bonito: Bonito) -> None:
    bonito.cli("providers", "add", "third", "--provider-key", SECOND_SECRET, status=2)


def test_an_answer_in_json_is_all_of_stdout(bonito: Bonito) -> None:
    done = subprocess.run(
        [str(BONITO), "chat", "--kb", "hr", "-m", "openai/gpt-4o", "--json", QUESTION],
        capture_output=True,
        env=bonito.clean_environment,
        check=True,
        timeout=60,
    )

    assert json.loads(done.stdout)["bonito"]["sources"][0]["document"] == "leave.txt"
    assert done.stderr == b""


def holders(directory: Path, text: str) -> list[str]:
    """The files below a directory in which the bytes of a text are."""
    done = subprocess.run(
        ["grep", "-rlaF", "--", text, str(directory)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.splitlines()
