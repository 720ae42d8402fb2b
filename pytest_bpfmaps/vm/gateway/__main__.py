"""Runs `gateway` as ``python -m pytest_bpfmaps.vm.gateway``."""

from __future__ import annotations

from pytest_bpfmaps.vm.gateway.gateway import main

main()
