"""Bad inputs, made from good ones; the same for the same seed."""

import os
import random
import struct

EXTREMES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000, 0xFFFFFFF0)


def how_many(usual):
    """How many bad inputs to try: ``BPFMAPS_FUZZ``, or so many as a usual run has time for."""
    return int(os.environ.get("BPFMAPS_FUZZ", usual))


def mutated(data, seed, *, within=None):
    """`data` with flipped bits, extreme numbers, or cut off; changes lie `within` (start, end)."""
    choice = random.Random(seed)
    out = bytearray(data)
    start, end = within or (0, len(out))
    for _ in range(choice.choice((1, 1, 1, 2, 4, 16))):
        kind = choice.randrange(4)
        at = choice.randrange(start, max(start + 1, end - 8))
        if kind == 0:
            out[at] ^= 1 << choice.randrange(8)
        elif kind == 1:
            out[at] = choice.randrange(256)
        elif kind == 2:
            struct.pack_into("<I", out, at & ~3, choice.choice(EXTREMES))
        else:
            struct.pack_into("<Q", out, at & ~7, choice.choice(EXTREMES) << choice.choice((0, 16, 32)))
    if choice.random() < 0.1:
        del out[choice.randrange(len(out)) :]
    return bytes(out)


def mutated_text(text, seed):
    """A source with characters and lines lost, doubled or put elsewhere."""
    choice = random.Random(seed)
    out = list(text)
    for _ in range(choice.randrange(1, 6)):
        at = choice.randrange(len(out))
        size = choice.choice((1, 1, 4, 40))
        piece = out[at : at + size]
        kind = choice.randrange(4)
        if kind == 0:
            del out[at : at + size]
        elif kind == 1:
            out[at:at] = piece
        elif kind == 2:
            to = choice.randrange(len(out))
            out[to:to] = piece
        else:
            out[at] = chr(choice.choice((0, 9, 34, 35, 40, 123, 125, 0x7F, 0xE9, 0x1F600)))
    return "".join(out)
