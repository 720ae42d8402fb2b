"""Gives its standard streams to a gateway that waits, and ends with it: ``relay.py ADDRESS ARGUMENT…``.

pytest-xdist starts this in place of a gateway. It imports little, because the tests wait for it. If the
waiting gateway has ended, it becomes a usual one.
"""

from __future__ import annotations

import json
import os
import socket
import sys

CLOSED = 1  # exit status where the gateway ended without one


def main() -> int:
    """Returns the gateway's exit status."""
    address, *arguments = sys.argv[1:]
    message = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect("\0" + address)
        except ConnectionRefusedError:  # that guest has died, and pytest-xdist begins its successor
            os.execv(sys.executable, [sys.executable, "-m", "pytest_bpfmaps.vm.gateway", *arguments])
        text = json.dumps(message).encode()
        socket.send_fds(connection, [len(text).to_bytes(4, "little")], [0, 1, 2])
        connection.sendall(text)
        for fd in (0, 1):  # they belong to the gateway from now on
            os.close(fd)
        status = connection.recv(1)
    return status[0] if status else CLOSED


if __name__ == "__main__":
    sys.exit(main())
