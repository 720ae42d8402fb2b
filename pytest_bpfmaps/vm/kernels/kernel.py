"""A kernel that guests can boot: where its files are, and what it was made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_bpfmaps.cache import staging
from pytest_bpfmaps.vm.kernels import kernel_json
from pytest_bpfmaps.vm.kernels.kernel_tree import FORMAT
from pytest_bpfmaps.vm.kernels.name_grammar import checked
from pytest_bpfmaps.vm.kernels.package import Package


@dataclass(frozen=True)
class Kernel:
    """A kernel that a guest can boot. All paths are absolute."""

    name: str
    """The catalogue's name, ``6.1``."""
    release: str
    """What ``uname -r`` says in the guest, ``6.1.0-13-amd64``."""
    image: Path
    """The compressed image (bzImage)."""
    modules: Path | None
    """The folder that holds ``lib/modules/RELEASE``."""
    btf: Path | None
    """The kernel's raw BTF."""
    config: Path | None
    """The build configuration."""
    source: str
    """Where it came from, ``debian:bookworm`` or a path."""
    arch: str
    """The architecture as ``uname -m`` says it, ``x86_64``."""
    vmlinux: Path | None = None
    """The uncompressed image, if it can boot as it is (PVH). It saves seconds where the CPU is emulated."""
    size: int = 0
    """Bytes on disk."""
    packages: tuple[Package, ...] = ()
    """The packages that it was made of."""

    @classmethod
    def read(cls, tree: Path, name: str | None = None) -> Kernel:
        """Returns the kernel in the folder `tree`.

        Raises OSError, ValueError, KeyError when it is damaged.
        """
        facts = kernel_json.read_facts(tree)
        if facts["format"] != FORMAT:
            raise ValueError(f"format {facts['format']}")
        release = checked("kernel release", facts["release"])
        image = Path(facts["image"])
        if image.is_absolute() or ".." in image.parts:
            raise ValueError(f"its image {facts['image']!r:.100} is outside of it")
        if not isinstance(facts["size"], int) or facts["size"] < 0:
            raise ValueError(f"its size is {facts['size']!r:.100}")

        def existing(relative: str) -> Path | None:
            return tree / relative if (tree / relative).exists() else None

        return cls(
            name=name or tree.name,
            release=release,
            image=tree / image,
            modules=tree if existing(f"lib/modules/{release}") else None,
            btf=existing("btf"),
            config=existing(f"boot/config-{release}"),
            source=facts["source"],
            arch=facts["arch"],
            vmlinux=existing("vmlinux"),
            size=facts["size"],
            packages=tuple(Package.from_json(p) for p in facts["packages"]),
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the kernel as JSON values; paths are strings."""
        facts = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        return {**facts, "packages": [p.to_json() for p in self.packages]}

    @property
    def tree(self) -> Path:
        """The folder that it is stored in."""
        return self.image.parent.parent

    def in_use(self) -> staging.InUse:
        """Keeps it stored until the returned object is closed."""
        return staging.InUse(self.tree)
