"""What Bonito costs, measured: a module per benchmark, with `run() -> dict[str, object]` and a `main`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping


def show(run: Callable[[], Mapping[str, object]], description: str | None) -> None:
    """The `main` of a benchmark: run it and print its figures, as one JSON object with --json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    as_json = parser.parse_args().json
    figures = run()
    if as_json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name}: {value}")
