"""Run one benchmark by its name, or all of them in turn: `.venv/bin/python -m bench [NAME] [--json]`."""

from __future__ import annotations

import argparse
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
# A module without `run` is a part of another one's benchmark. It is not imported to find out: imports cost seconds.
DEFINES_RUN = re.compile(r"^def run\(", re.M)


def main() -> int:
    """Each benchmark runs in a process of its own, so that none measures what another has left in memory."""
    names = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=names, help="one benchmark; all of them without it")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, by benchmark")
    arguments = parser.parse_args()
    figures: dict[str, object] = {}
    failed = []
    for name in [arguments.name] if arguments.name else names:
        if not arguments.json:
            print(f"== {name}", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", *(["--json"] if arguments.json else [])]
        done = subprocess.run(command, stdout=subprocess.PIPE if arguments.json else None, text=True, check=False)
        if done.returncode:
            failed.append(name)
        elif arguments.json:
            figures[name] = json.loads(done.stdout)
    if arguments.json:
        print(json.dumps(figures))
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def benchmarks() -> list[str]:
    """The names of all benchmarks in this folder, sorted."""
    modules = (module.name for module in pkgutil.iter_modules([str(FOLDER)]))
    return sorted(name for name in modules if DEFINES_RUN.search((FOLDER / f"{name}.py").read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
