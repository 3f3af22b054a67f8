# Copyright: dbfleet.audit contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Measures what auditing costs, beside other ways to do it. benchmarks/overhead/run starts it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys

import rounds
from measuring import say

#: One module each: its ``tables(options, say)`` measures.
ENGINES = ("postgresql", "mariadb")
INSTRUCTIONS = "instructions"


def main() -> int:
    """Measure and print."""
    arguments = parsed()
    options = rounds.Options(arguments.size, tuple(arguments.only))
    parts = ENGINES if arguments.engine == "all" else (arguments.engine,)
    if arguments.instructions:
        parts = (INSTRUCTIONS,)
    print(f"{os.cpu_count()} cores, load before {os.getloadavg()[0]:.1f}", flush=True)
    targets: list[rounds.Target] = []
    samples = {}
    for name in parts:
        part = importlib.import_module(name).tables(options, say)
        print(f"\n## {name}\n\n{part.text}", flush=True)
        targets += part.targets
        samples[name] = rounds.raw(part.results)
    if targets:
        print(f"\n## Targets\n\n{rounds.target_table(targets)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(samples, indent=1) + "\n", encoding="utf-8")
    return 0


def parsed() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks/overhead/run")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", dest="size", action="store_const", const="quick", default="short")
    sizes.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--engine", choices=(*ENGINES, "all"), default="all")
    parser.add_argument("--instructions", action="store_true")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
