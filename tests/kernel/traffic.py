"""What tests of programs on interfaces share: programs that count, packets that nobody else sends."""

COUNT = """
__u64 seen;
SEC("{section}") int count({ctx} *ctx) {{ __sync_fetch_and_add(&seen, 1); return {verdict}; }}
SEC("{section}") int drop({ctx} *ctx) {{ return {other}; }}
"""


def frame(veth, payload=b""):
    macs = bytes.fromhex(veth.far.mac.replace(":", "") + veth.near.mac.replace(":", ""))
    return macs + b"\x88\xb5" + payload.ljust(46, b"\0")
