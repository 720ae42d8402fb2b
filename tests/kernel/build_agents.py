"""Builds the agents that tests start: C with libbpf, compiled once in a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

AGENTS = Path(__file__).with_name("agents")


def build_agent(folder: Path) -> Path:
    """Returns the path of ``agent.c`` as a binary."""
    made = folder / "agent"
    subprocess.run(["gcc", "-O1", "-g", "-o", made, AGENTS / "agent.c", "-lbpf"], check=True)
    return made
