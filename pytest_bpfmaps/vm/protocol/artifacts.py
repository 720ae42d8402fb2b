"""Sends files of a guest to its host, in pieces that fit into a message."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from pytest_bpfmaps.vm.protocol.rpc import Host

PIECE = 4 << 20  # bytes


def send_file(host: Host, source: Path, folder: Path, name: str) -> Path:
    """Copies the file `source` of this guest to `folder` on the host, under `name`, and returns its path.

    Raises OSError if the file can't be read, and what the host says: `VmError`.
    """
    result = ""
    with source.open("rb") as file:
        is_first = True
        while (data := file.read(PIECE)) or is_first:
            piece = base64.b64encode(data).decode()
            message = {"folder": str(folder), "name": name, "data": piece, "first": is_first}
            result = host.call("artifact", json.dumps(message))
            is_first = False
    return Path(result)
