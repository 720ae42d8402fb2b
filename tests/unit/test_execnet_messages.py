"""Tests what a guest's worker may send: execnet makes the messages, and they are cut anywhere."""

from __future__ import annotations

import io
import os
import struct
import threading

import pytest
from execnet.gateway_base import Message
from hypothesis import given
from hypothesis import strategies as st

from pytest_bpfmaps.vm.gateway.execnet_messages import LONGEST, Messages, pass_on

KINDS = st.sampled_from([Message.GATEWAY_TERMINATE, Message.CHANNEL_DATA, Message.CHANNEL_CLOSE])
MESSAGES = st.builds(Message, KINDS, st.integers(0, 2**31 - 1), st.binary(max_size=40))


def written(messages: list[Message]) -> bytes:
    file = io.BytesIO()
    for each in messages:
        each.to_io(file)
    return file.getvalue()


@given(sent=st.lists(MESSAGES, max_size=6), sizes=st.lists(st.integers(1, 30), min_size=1))
def test_messages_of_execnet_are_fine_wherever_they_are_cut(sent: list[Message], sizes: list[int]) -> None:
    data, messages, n = written(sent), Messages(), 0
    while data:
        size = sizes[n % len(sizes)]
        assert messages.feed(data[:size]) is None
        data, n = data[size:], n + 1
    assert not messages.is_open


@given(sent=st.lists(MESSAGES, min_size=1, max_size=4), cut=st.integers(1, 5))
def test_a_message_without_its_end_is_open(sent: list[Message], cut: int) -> None:
    messages = Messages()
    assert messages.feed(written(sent)[:-cut]) is None
    assert messages.is_open


@pytest.mark.parametrize(
    ("kind", "channel", "length"),
    [(0, 1, 4), (1, 0, 4), (3, 1, 4), (99, 1, 4), (-1, 1, 4), (4, -1, 4), (4, 1, -5), (4, 1, LONGEST + 1)],
)
def test_what_no_worker_sends(kind: int, channel: int, length: int) -> None:
    messages = Messages()
    start = written([Message(Message.CHANNEL_DATA, 1, b"x")])
    wrong = messages.feed(start + struct.pack("!bii", kind, channel, length) + b"abcd")
    assert wrong == f"a message of kind {kind}, channel {channel}, {length} bytes"


def test_the_rest_does_not_come() -> None:
    """Everything up to then is passed on, and the fault comes once."""
    (source, end), (begin, target) = os.pipe(), os.pipe()
    faults: list[str] = []
    os.write(
        end, written([Message(Message.CHANNEL_DATA, 1, b"whole")]) + struct.pack("!bii", 4, 1, 10) + b"part"
    )
    pass_on(source, target, 0.05, faults.append)
    assert faults == ["on its worker's port, a message has no end: 6 bytes of 10 did not come in 0.05 s"]
    assert os.read(begin, 100).endswith(b"part")
    for each in (source, end, begin, target):
        os.close(each)


def test_it_waits_between_messages_as_long_as_it_takes() -> None:
    (source, end), (begin, target) = os.pipe(), os.pipe()
    faults: list[str] = []
    thread = threading.Thread(target=pass_on, args=(source, target, 0.01, faults.append))
    thread.start()
    for _ in range(3):
        os.write(end, written([Message(Message.CHANNEL_DATA, 1, b"x")]))
        assert os.read(begin, 100).endswith(b"x")
        thread.join(0.05)
        assert thread.is_alive()
    os.close(end)
    thread.join(10)
    assert not thread.is_alive()
    assert faults == []
    for each in (source, begin, target):
        os.close(each)
