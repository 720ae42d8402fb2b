"""A gateway whose guest starts before a run needs it: ``prepared PARENT LISTENER KERNEL [options]``.

PARENT is the id of the process that starts it, and LISTENER the descriptor of a socket. It waits there until
`relay.py` brings the standard streams and the arguments of a run. Then it is a usual gateway. Until then the
guest reads no file of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import struct
import sys
import threading
from contextlib import suppress

from pytest_bpfmaps.compiler import CompileRequest
from pytest_bpfmaps.compiler.local_compiler import LocalCompiler
from pytest_bpfmaps.errors import BpfError, VmError
from pytest_bpfmaps.vm.boot.backends import WARM
from pytest_bpfmaps.vm.boot.start import boot
from pytest_bpfmaps.vm.boot.warm import has_current_state
from pytest_bpfmaps.vm.gateway.gateway import Gateway, Ready, serve, shape_of
from pytest_bpfmaps.vm.gateway.options import parse
from pytest_bpfmaps.vm.guest.warm_up import SOURCE
from pytest_bpfmaps.vm.kernels.catalogue import Catalogue, check_content
from pytest_bpfmaps.vm.machine.child_process import die_with


def main() -> None:
    """Starts a guest, waits, and serves one run."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(int(sys.argv[1]))
    listener = socket.socket(fileno=int(sys.argv[2]))
    ready = _start(parse(sys.argv[3:]))
    if ready is not None:
        _warm_up(ready)
    connection = _accept(listener)
    arguments = _take(connection)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    status = serve(Gateway(parse(arguments)), _checked(ready))
    connection.send(bytes([status & 0xFF]))
    os._exit(status)  # threads may read from pipes that nobody will close


def _start(options: argparse.Namespace) -> Ready | None:
    """Returns a guest from a saved state. None where there is none: the run starts one then, and says why."""
    try:
        kernel = Catalogue().select(options.kernel)[0]
        kernel.in_use()  # closed by the end of this process
        check_content(kernel, "boot/config")
        return kernel, boot(kernel, WARM, shape_of(options, kernel), options.timeout)
    except VmError:
        return None


def _warm_up(ready: Ready) -> None:
    """Has an emulated guest do what a run does, so that the emulator has translated that code."""
    _, booted = ready
    if booted.attempt.shape.kvm:
        return
    try:
        request = CompileRequest(code=SOURCE, name="warm_up.bpf.c")
        program: str | None = str(LocalCompiler(warn=lambda _: None).compile(request))
    except BpfError:  # without clang
        program = None
    with suppress(OSError):  # the guest has ended, which the run notices
        booted.control.send({"warm_up": program})


def _checked(ready: Ready | None) -> Ready | None:
    """Returns the guest if it is alive, and made of what is on the disk now. Else ends it."""
    if ready is None:
        return None
    kernel, booted = ready
    if booted.machine.process.poll() is None and has_current_state(kernel, booted.attempt.shape):
        return ready
    booted.machine.close()
    return None


def _accept(listener: socket.socket) -> socket.socket:
    """Returns the connection of the next process of this user."""
    while True:
        connection, _ = listener.accept()
        found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        if struct.unpack("3i", found)[1] == os.geteuid():
            listener.close()
            return connection
        connection.close()


def _take(connection: socket.socket) -> list[str]:
    """Takes over the streams, the folder and the environment of the run. Returns its arguments."""
    head, streams, _, _ = socket.recv_fds(connection, 4, 3)
    if len(head) < 4:
        os._exit(0)  # the run has ended
    size, text = int.from_bytes(head, "little"), b""
    while len(text) < size:
        chunk = connection.recv(size - len(text))
        if not chunk:
            os._exit(0)
        text += chunk
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    message = json.loads(text)
    os.chdir(message["folder"])
    os.environ.clear()
    os.environ.update(message["environment"])
    arguments: list[str] = message["arguments"]
    return arguments


def _end_with(connection: socket.socket) -> None:
    """Ends this process with the one that brought the streams."""
    while connection.recv(1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
