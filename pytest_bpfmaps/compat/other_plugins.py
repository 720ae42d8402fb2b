"""Tells other plugins about guests. They assume that every pytest-xdist worker is a process of this machine.

pytest-cov decides before any test is collected whether there will be workers. It makes a worker write files
if the worker's host has the name of this one. pytest-rerunfailures makes workers connect to a port of this
machine, and guests can't do that. pytest-timeout gives tests time limits of their own.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest


def expect_workers(config: pytest.Config) -> None:
    """Tells pytest-cov that there will be workers. It may have begun as if there were none.

    pytest-cov has one class for each case. Both begin to measure in the same way.
    """
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None or hasattr(controller, "configure_node"):
        return
    engine: Any = sys.modules[type(controller).__module__]
    controller.__class__ = engine.DistMaster
    controller.cov.config.paths["source"] = [controller.topdir]


def expect_guest(workerinput: dict[str, Any]) -> None:
    """Makes pytest-cov in a guest send what it measures. Files that it writes would stay in the guest."""
    if "cov_master_host" in workerinput:
        workerinput["cov_master_host"] = "the host of a guest"


def settle_in_guest(workerinput: dict[str, Any]) -> None:
    """Gives pytest-rerunfailures a server in the guest itself, where it counts failures."""
    plugin: Any = sys.modules.get("pytest_rerunfailures")
    if plugin is not None and "sock_port" in workerinput:
        server = plugin.ServerStatusDB()
        workerinput["sock_port"] = server.sock_port
        workerinput["statusdb_token"] = getattr(server, "token", None)  # newer versions need it


def time_limit(item: pytest.Item) -> float:
    """Returns the seconds that pytest-timeout lets the test run; 0 where there is no such limit."""
    settings = getattr(sys.modules.get("pytest_timeout"), "_get_item_settings", None)
    if settings is None or not item.config.pluginmanager.has_plugin("timeout"):
        return 0.0
    try:
        return max(float(settings(item).timeout or 0), 0.0)
    except (TypeError, ValueError, AttributeError):  # a wrong marker, which pytest-timeout refuses later
        return 0.0
