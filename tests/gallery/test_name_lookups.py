"""Look into a library: uprobes in the C library's getaddrinfo, which Python calls."""

import os
import socket

import pytest

pytestmark = pytest.mark.bpf_requires("uprobe/x", "ringbuf")


def test_tells_what_is_looked_up_and_how_it_ended(bpf):
    tracer = bpf.load("name_lookups.bpf.c", globals={"target_pid": os.getpid()})
    tracer.programs.getaddrinfo_enter.attach(binary="libc", function="getaddrinfo")
    tracer.programs.getaddrinfo_return.attach(binary="libc", function="getaddrinfo")

    with tracer.maps.events.capture() as events:
        socket.getaddrinfo("127.0.0.1", 80)
        with pytest.raises(socket.gaierror) as refused:
            socket.getaddrinfo("127.0.0.1", "no-such-service")

        events.expect(name="127.0.0.1", result=0, count=1)
        events.expect(name="127.0.0.1", result=refused.value.errno, count=1)
