"""Tests that programs run on captures, and that runs and interfaces write them; Scapy reads and writes."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.utils import rdpcap, wrpcap

from pytest_bpfmaps.errors import TriggerError

ODD = """
SEC("xdp") int odd(struct xdp_md *ctx)
{
    __u8 *data = (void *)(long)ctx->data;
    if (data + 14 > (__u8 *)(long)ctx->data_end)
        return XDP_ABORTED;
    data[0] = 0xff;
    return data[5] % 2 ? XDP_DROP : XDP_PASS;
}
"""


def packet(number):
    made = Ether(dst=f"02:00:00:00:00:{number:02x}", src="02:00:00:00:01:00") / IP(dst="10.0.0.1") / UDP()
    made.time = 1_700_000_000 + number
    return made


def test_a_capture_in_and_one_out(load_code, tmp_path):
    odd = load_code(ODD).programs.odd
    wrpcap(str(tmp_path / "in.pcap"), [packet(n) for n in range(4)])
    results = odd.run_pcap(tmp_path / "in.pcap", to=tmp_path / "out.pcap")
    assert [result.retval for result in results] == ["XDP_PASS", "XDP_DROP"] * 2
    out = rdpcap(str(tmp_path / "out.pcap"))
    assert [each[Ether].dst for each in out] == [f"ff:00:00:00:00:{n:02x}" for n in range(4)]
    assert [float(each.time) for each in out] == [1_700_000_000 + n for n in range(4)]
    results[3].write_pcap(tmp_path / "one.pcap")
    assert bytes(rdpcap(str(tmp_path / "one.pcap"))[0]) == bytes(out[3])


def test_what_is_no_capture(load_code, tmp_path):
    odd = load_code(ODD).programs.odd
    (tmp_path / "in.pcap").write_bytes(b"something else, and not short at all")
    with pytest.raises(TriggerError, match=r"cannot read packets from .*in\.pcap: it does not begin as"):
        odd.run_pcap(tmp_path / "in.pcap", to=tmp_path / "out.pcap")
    assert not (tmp_path / "out.pcap").exists()
    with pytest.raises(FileNotFoundError):
        odd.run_pcap(tmp_path / "none.pcap")


def test_sniffed_frames(veth, tmp_path):
    sent = [bytes(packet(n)) for n in range(3)]
    with veth.far.sniff() as sniffer:
        for each in sent:
            veth.near.send(each)
        sniffer.wait(3, match=lambda frame: frame in sent)
    sniffer.write_pcap(tmp_path / "seen.pcap")
    seen = [bytes(each) for each in rdpcap(str(tmp_path / "seen.pcap"))]
    assert seen == list(sniffer)
    assert [each for each in seen if each in sent] == sent
