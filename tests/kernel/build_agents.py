"""Builds the agents that tests start: C with libbpf, compiled once in a run."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

AGENTS = Path(__file__).with_name("agents")


def build_agent(folder: Path) -> Path:
    """Returns the path of ``agent.c`` as a binary."""
    made = folder / "agent"
    subprocess.run(["gcc", "-O1", "-g", "-o", made, AGENTS / "agent.c", "-lbpf"], check=True)
    return made


@pytest.fixture(scope="session")
def agent_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of ``agent.c``, which does what its arguments say."""
    return build_agent(tmp_path_factory.mktemp("agent"))
