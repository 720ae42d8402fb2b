"""BTF (BPF Type Format) to Python values and back: one codec for each kind of type.

Nothing here uses maps or libbpf. The input is the bytes of a ``.BTF`` section
(https://docs.kernel.org/bpf/btf.html).
"""

from __future__ import annotations

from pytest_bpfmaps.btf.array_codecs import BytesCodec
from pytest_bpfmaps.btf.codec import Codec
from pytest_bpfmaps.btf.codecs import Codecs
from pytest_bpfmaps.btf.flexible_arrays import RecordBytesCodec
from pytest_bpfmaps.btf.record import Record
from pytest_bpfmaps.btf.types import Btf, BtfType, Kind

__all__ = ["Btf", "BtfType", "BytesCodec", "Codec", "Codecs", "Kind", "Record", "RecordBytesCodec"]
