"""Tests captures: what is written is what Scapy reads, and the other way round."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from scapy.layers.l2 import Ether
from scapy.utils import PcapNgWriter, PcapWriter, rdpcap

from pytest_bpfmaps.errors import TriggerError
from pytest_bpfmaps.triggers.pcap import Frame, pcap_bytes, read_pcap, write_pcap

frames = some.lists(
    some.builds(Frame, some.binary(min_size=14, max_size=200), some.integers(0, 2**32 - 1).map(float))
)


@given(written=frames)
def test_scapy_reads_what_is_written(tmp_path_factory: pytest.TempPathFactory, written: list[Frame]) -> None:
    path = tmp_path_factory.mktemp("capture") / "made.pcap"
    write_pcap(path, written)
    assert [(bytes(packet), float(packet.time)) for packet in rdpcap(str(path))] == written
    assert read_pcap(path) == written


@pytest.mark.parametrize("nano", [False, True])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_what_scapy_writes_is_read(tmp_path: Path, nano: bool, endianness: str) -> None:
    path = tmp_path / "made.pcap"
    with PcapWriter(str(path), nano=nano, endianness=endianness) as writer:
        for number in (1, 2):
            packet = Ether(bytes([number]) * 60)
            packet.time = 1_700_000_000 + number / 4
            writer.write(packet)
    assert read_pcap(path) == [Frame(bytes([n]) * 60, 1_700_000_000 + n / 4) for n in (1, 2)]


def test_what_is_refused(tmp_path: Path) -> None:
    whole = pcap_bytes([Frame(bytes(60)), Frame(bytes(60))])
    path = tmp_path / "some.pcap"
    for data, why in {
        whole[:-1]: "it is cut off in packet 2",
        whole[:-61]: "it is cut off in packet 2",
        whole[:23]: "it does not begin as a capture does",
        b"": "it does not begin as a capture does",
        whole[:20] + bytes([113]) + whole[21:]: "a header of type LINUX_SLL, not with Ethernet's",
        whole[:36] + b"\x3d" + whole[37:]: "packet 1 has 60 of its 61 bytes",
    }.items():
        path.write_bytes(data)
        with pytest.raises(TriggerError, match=why):
            read_pcap(path)
    with PcapNgWriter(str(path)) as writer:
        writer.write(Ether(bytes(60)))
    with pytest.raises(TriggerError, match="it is a pcapng file"):
        read_pcap(path)
