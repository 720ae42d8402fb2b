"""Starts the CPUs of a guest. An emulated guest boots with one of them, because that is faster."""

from __future__ import annotations

import glob


def start_all_cpus() -> None:
    """Starts the CPUs that the guest did not boot with."""
    for switch in glob.glob("/sys/devices/system/cpu/cpu[0-9]*/online"):
        with open(switch, "r+") as file:
            if file.read().strip() == "0":
                file.write("1")
