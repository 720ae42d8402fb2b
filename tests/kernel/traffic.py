"""Helpers of tests of programs on interfaces: programs that count, packets that nobody else sends."""

COUNT = """
__u64 seen;
SEC("{section}") int count({ctx} *ctx) {{ __sync_fetch_and_add(&seen, 1); return {verdict}; }}
SEC("{section}") int drop({ctx} *ctx) {{ return {other}; }}
"""


KIND = b"\x88\xb5"  # an EtherType for experiments


def frame(veth, payload=b""):
    macs = bytes.fromhex(veth.far.mac.replace(":", "") + veth.near.mac.replace(":", ""))
    return macs + KIND + payload.ljust(46, b"\0")


def is_ours(packet):
    """Returns whether it is such a frame. On a busy machine frames of the kernel may come late."""
    return bytes(packet[12:14]) == KIND
