"""The packet of a run is equal to each form of the same bytes."""

from pathlib import Path

import pytest

from pytest_bpfmaps.programs.packet import Packet

DATA = bytes(range(64))


def _kind(value: object) -> str:
    return type(value).__name__


class Frame:
    def __bytes__(self) -> bytes:
        return DATA


class Broken:
    def __bytes__(self) -> bytes:
        raise ValueError("no length yet")


@pytest.mark.parametrize("other", [DATA, bytearray(DATA), memoryview(DATA), Packet(DATA), Frame()], ids=_kind)
def test_it_equals_the_same_bytes(other: object) -> None:
    assert Packet(DATA) == other
    assert not Packet(DATA) != other  # noqa: SIM202
    assert Packet(DATA[:-1]) != other
    assert not Packet(DATA[:-1]) == other  # noqa: SIM201


@pytest.mark.parametrize("other", [Broken(), Frame, None, 7, list(DATA), DATA.decode()], ids=_kind)
def test_it_differs_from_all_else(other: object) -> None:
    assert Packet(DATA) != other
    assert not Packet(DATA) == other  # noqa: SIM201


def test_it_is_no_path() -> None:
    assert Packet(b"a") != Path("a")


def test_it_hashes_as_its_bytes_do() -> None:
    assert {Packet(DATA): 1}[DATA] == 1
    assert {DATA: 1}[Packet(DATA)] == 1


def test_it_equals_a_packet_of_scapy() -> None:
    pytest.importorskip("scapy", reason="Scapy is missing: pip install scapy")
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Ether

    frame = (
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(dst="10.0.0.2", src="10.0.0.1") / UDP()
    )
    assert Packet(bytes(frame)) == frame
    frame.getlayer("IP").ttl -= 1
    assert Packet(bytes(frame)) == frame
    assert Packet(bytes(frame)) != Ether() / IP(ttl=3) / UDP()
