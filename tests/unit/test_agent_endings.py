"""Tests the explanations of what agents write when a service or a network is not there.

The texts are what tools of Debian 12 wrote in a guest.
"""

import pytest

from pytest_bpfmaps.loaders import endings
from pytest_bpfmaps.loaders.endings import explain_output

SYSTEMCTL = """System has not been booted with systemd as init system (PID 1). Can't operate.
Failed to connect to bus: Host is down
"""
BUSCTL = "Failed to connect to bus: No such file or directory\n"
DBUS_SEND = """Failed to open connection to "system" message bus: Failed to connect to socket
/run/dbus/system_bus_socket: No such file or directory
"""
NOTIFY = "No status data could be sent: $NOTIFY_SOCKET was not set\n"
CURL = "curl: (7) Failed to connect to 192.0.2.1 port 80 after 126 ms: Couldn't connect to server\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (SYSTEMCTL, "it needs systemd, which does not run here"),
        (BUSCTL, "it needs D-Bus, and there is no /nowhere/bus"),
        (DBUS_SEND, "it needs D-Bus, and there is no /nowhere/bus"),
        (NOTIFY, "it tells systemd that it is ready, and no systemd has started it"),
    ],
)
def test_a_service_is_named(monkeypatch, text, why):
    monkeypatch.setattr(endings, "_BUS", "/nowhere/bus")
    assert explain_output(text).why.startswith(why)


def test_a_bus_that_is_there_is_not_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(endings, "_BUS", str(tmp_path))
    assert explain_output(BUSCTL) is None


@pytest.mark.parametrize(
    ("v4", "v6", "is_explained"),
    [
        (
            "Iface Destination\nlo 0000007F\n",
            f"{'0' * 32} 00 {'0' * 32} 00 {'0' * 32} ffffffff 1 0 00200200 lo\n",
            True,
        ),
        ("Iface Destination\neth0 00000000\n", "", False),
        ("", f"{'0' * 32} 00 {'0' * 32} 00 fd00 00000400 3 0 3 eth0\n", False),
    ],
)
def test_a_server_that_does_not_answer_is_no_missing_network(monkeypatch, v4, v6, is_explained):
    routes = {"/proc/net/route": v4.splitlines(), "/proc/net/ipv6_route": v6.splitlines()}
    monkeypatch.setattr(endings, "_lines", routes.__getitem__)
    found = explain_output(CURL)
    assert (found is not None) == is_explained
    if found:
        assert "no route to one: Failed to connect to 192.0.2.1 port 80" in found.why
