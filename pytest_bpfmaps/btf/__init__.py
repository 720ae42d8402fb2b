"""BPF Type Format to Python values and back: one codec per kind of type.

Nothing here knows about maps or libbpf: the input is the bytes of a ``.BTF`` section
(https://docs.kernel.org/bpf/btf.html).
"""

from __future__ import annotations

from .codec import Codec
from .factory import Codecs
from .flexible import RecordBytesCodec
from .record import Record
from .sequences import BytesCodec
from .types import Btf, BtfType, Kind

__all__ = ["Btf", "BtfType", "BytesCodec", "Codec", "Codecs", "Kind", "Record", "RecordBytesCodec"]
