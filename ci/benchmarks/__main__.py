"""``ci/bench``: runs the benchmarks of this folder's modules, and prints what they measured."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmark import WALL, Absent, Benchmark, measure

# Every module here that has a BENCHMARKS list.
MODULES = sorted(
    path.stem for path in Path(__file__).parent.glob("*.py") if "\nBENCHMARKS" in path.read_text()
)


def main() -> int:
    """Runs the benchmarks. Returns 0 when every figure that could be measured meets its goal."""
    parser = argparse.ArgumentParser(prog="ci/bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="benchmarks, or the start of their names")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each side (default: 5)")
    parser.add_argument("--wall", action="store_true", help="wall time (default: processor time)")
    parser.add_argument("--list", action="store_true", help="only list the names")
    options = parser.parse_args()
    if options.wall:
        os.environ[WALL] = "1"
    chosen = [b for b in known() if not options.names or any(b.name.startswith(n) for n in options.names)]
    if not chosen:
        parser.error(f"no such benchmark; there are: {', '.join(b.name for b in known())}")
    if options.list:
        print("\n".join(b.name for b in chosen))
        return 0
    results = []
    with contextlib.ExitStack() as stack:
        for benchmark in chosen:
            results.append(result := run(benchmark, options.rounds, stack))
            print(json.dumps(result) if options.json else line(result), flush=True)
    return 0 if all(r["met"] is not False for r in results) else 1


def known() -> list[Benchmark]:
    return [b for name in MODULES for b in importlib.import_module(name).BENCHMARKS]


def run(benchmark: Benchmark, rounds: int, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Returns the result as ``--json`` prints it; without figures when the peer is absent."""
    try:
        return measure(benchmark, rounds, stack)
    except Absent as absent:
        nothing = dict.fromkeys(("ours", "peer", "ratio", "goal", "met"))
        return {
            "name": benchmark.name,
            **nothing,
            "peer_name": benchmark.peer_name,
            "unit": benchmark.unit,
            "absent": str(absent),
        }


def line(result: dict[str, Any]) -> str:
    """Returns the result as text for a person."""
    name = f"{result['name']:<20}"
    if "absent" in result:
        return f"{name} {result['peer_name']} is absent: {result['absent']}"
    verdict = "met" if result["met"] else "NOT MET"
    return (
        f"{name} ours {result['ours']:9.4g}  {result['peer_name']} {result['peer']:9.4g} {result['unit']}"
        f"  ratio {result['ratio']:.3g} (goal {result['relation']} {result['goal']:.3g}): {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
