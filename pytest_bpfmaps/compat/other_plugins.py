"""Plugins that take pytest-xdist's workers for processes of this machine: they are told about guests.

pytest-cov decides before any test is collected whether there will be workers, and has them write files where
their host has this one's name. pytest-rerunfailures has them connect to a port here, which guests can't do.
pytest-timeout gives tests limits of their own.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest


def expect_workers(config: pytest.Config) -> None:
    """There will be workers: tell pytest-cov, which may have begun as if there were none.

    It has a class for either case; what they have begun to measure with is the same.
    """
    controller = getattr(config.pluginmanager.get_plugin("_cov"), "cov_controller", None)
    if controller is None or hasattr(controller, "configure_node"):
        return
    engine: Any = sys.modules[type(controller).__module__]
    controller.__class__ = engine.DistMaster
    controller.cov.config.paths["source"] = [controller.topdir]


def expect_guest(workerinput: dict[str, Any]) -> None:
    """Have pytest-cov in a guest send what it measures, as from another machine: its files stay there."""
    if "cov_master_host" in workerinput:
        workerinput["cov_master_host"] = "the host of a guest"


def settle_in_guest(workerinput: dict[str, Any]) -> None:
    """Give pytest-rerunfailures a server in the guest itself; it counts failures there."""
    plugin: Any = sys.modules.get("pytest_rerunfailures")
    if plugin is not None and "sock_port" in workerinput:
        server = plugin.ServerStatusDB()
        workerinput["sock_port"] = server.sock_port
        workerinput["statusdb_token"] = getattr(server, "token", None)  # which newer versions ask for


def time_limit(item: pytest.Item) -> float:
    """The seconds that pytest-timeout lets the test run; 0 where there is no such limit."""
    settings = getattr(sys.modules.get("pytest_timeout"), "_get_item_settings", None)
    if settings is None or not item.config.pluginmanager.has_plugin("timeout"):
        return 0.0
    try:
        return max(float(settings(item).timeout or 0), 0.0)
    except (TypeError, ValueError, AttributeError):  # a wrong marker, which pytest-timeout is about to refuse
        return 0.0
