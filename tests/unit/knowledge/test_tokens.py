"""Counts equal those of the models' own tokenizers; what is not known is estimated upwards."""

from __future__ import annotations

import base64
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from bonito.errors import ModelNotFound
from bonito.knowledge import tokens
from bonito.knowledge.tokens import tokenizer_for

# From tiktoken_ext/openai_public.py, which would fetch the vocabulary from the network.
CL100K_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
    r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
)
CL100K_FILE = "litellm_core_utils/tokenizers/9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
SAMPLES = {
    "prose": "Full-time employees accrue 2.08 days of paid leave a month, which expire on 31 March. " * 20,
    "german": "Überstunden werden im Folgemonat ausgeglichen; Resturlaub verfällt am 31. März. " * 20,
    "code": "def claim(conn: AsyncConnection[Any], *, org_id: UUID) -> Document:\n    return self._row[0]\n" * 20,
    "table": "| Employee 17 | 2017-03-01 | 4,200.00 | yes |\n| --- | --- | --- | --- |\n" * 20,
    "rules": "-----------------|=================\n" * 20,
    "json": '{"employees": [{"name": "Ada", "since": 1843, "remote": true}]}\n' * 20,
    "base64": base64.b64encode(bytes(range(256)) * 4).decode(),
    "japanese": "漢字仮名交じり文を東京都で読みます。" * 30,
}


@cache
def oracle() -> tiktoken.Encoding:
    """OpenAI's own implementation over the vocabulary as litellm carries it."""
    spec = importlib.util.find_spec("litellm")
    assert spec is not None
    assert spec.origin is not None
    lines = Path(spec.origin).parent.joinpath(CL100K_FILE).read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding("cl100k", pat_str=CL100K_PATTERN, mergeable_ranks=ranks, special_tokens={})


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(max_size=200), max_size=5))
def test_openais_vocabulary_counts_as_tiktoken_does_over_any_unicode(texts: list[str]) -> None:
    counts = tokenizer_for("openai/text-embedding-3-large").count(texts)

    assert counts == [len(oracle().encode_ordinary(text)) for text in texts]


@pytest.mark.parametrize("text", [*SAMPLES.values(), "<|endoftext|> <|fim_prefix|>", "", " \n\n\t  \r\n ", "👩‍👩‍👧 🇩🇪"])
def test_openais_vocabulary_counts_as_tiktoken_does(text: str) -> None:
    assert tokenizer_for("text-embedding-ada-002").count([text]) == [len(oracle().encode_ordinary(text))]


def test_the_local_models_count_leaves_room_for_its_special_tokens() -> None:
    tokenizer = tokenizer_for("local/all-minilm-l6-v2")

    # [CLS] how many days ? [SEP]
    assert tokenizer.count(["How many days?", "", " \n "]) == [4, 0, 0]
    assert tokenizer.max_text_tokens == 256 - 2


def test_a_text_of_any_length_is_counted_to_its_end() -> None:
    assert tokenizer_for("local/all-minilm-l6-v2").count(["leave " * 100_000]) == [100_000]


def test_no_text_has_no_counts() -> None:
    assert tokenizer_for("openai/text-embedding-3-small").count([]) == []


def test_many_texts_keep_their_order() -> None:
    texts = ["word " * (index % 7) for index in range(20_000)] + ["x" * 300_000, "one"]

    counts = tokenizer_for("local/all-minilm-l6-v2").count(texts)

    assert counts == [index % 7 for index in range(20_000)] + [1, 1]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("local/all-minilm-l6-v2", "all-minilm-l6-v2"),
        ("openai/text-embedding-3-small", "cl100k_base"),
        ("azure-eu/text-embedding-3-large", "cl100k_base"),
        ("text-embedding-ada-002", "cl100k_base"),
        ("ollama/nomic-embed-text", "estimate"),
        ("ollama/all-minilm-l6-v2", "estimate"),
        ("azure-eu/our-own-deployment", "estimate"),
        ("", "estimate"),
    ],
)
def test_a_model_has_its_tokenizer_which_its_own_name_finds_again(model: str, name: str) -> None:
    tokenizer = tokenizer_for(model)

    assert tokenizer.name == name
    assert tokenizer_for(name) is tokenizer


@pytest.mark.parametrize("sample", SAMPLES)
def test_an_estimate_is_never_below_what_openais_and_berts_vocabularies_find(sample: str) -> None:
    text = SAMPLES[sample]

    (estimate,) = tokenizer_for("vllm/unheard-of").count([text])

    assert estimate >= tokenizer_for("text-embedding-3-small").count([text])[0]
    assert estimate >= tokenizer_for("local/all-minilm-l6-v2").count([text])[0]


def test_a_missing_local_model_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens._minilm.cache_clear()
    with monkeypatch.context() as patched:
        patched.setattr(sys, "path", [])
        with pytest.raises(ModelNotFound):
            tokenizer_for("local/all-minilm-l6-v2")

    assert tokenizer_for("local/all-minilm-l6-v2").count(["days"]) == [1]


def test_importing_loads_no_vocabulary_and_counting_needs_no_numpy() -> None:
    program = (
        "import sys; from bonito.knowledge import chunking, tokens; before = 'tokenizers' in sys.modules; "
        "tokens.tokenizer_for('x/y').count(['z']); print(before, 'numpy' in sys.modules)"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "False False"


@pytest.mark.parametrize("model", ["local/all-minilm-l6-v2", "openai/text-embedding-3-small", "vllm/unheard-of"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_weight_is_close_to_the_count_and_the_same_every_time(sample: str, model: str) -> None:
    tokenizer, text = tokenizer_for(model), SAMPLES[sample]

    (count,), (weight,) = tokenizer.count([text]), tokenizer.weigh([text])

    assert 0.97 * count <= weight <= 1.25 * count
    assert tokenizer.weigh([text, "", text]) == [weight, 0, weight]


def test_more_words_than_are_remembered_are_weighed_all_the_same() -> None:
    tokenizer = tokenizer_for("local/all-minilm-l6-v2")
    texts = [f"{number} days" for number in range(60_000)]

    assert tokenizer.weigh(texts) == tokenizer.count(texts)
