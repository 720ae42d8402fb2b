"""The class of the fixture `bpf`: it compiles and loads programs, and closes what it made."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from pytest_bpfmaps.compiler import Compiler
from pytest_bpfmaps.compiler.named_sources import Source, Sources, each_source
from pytest_bpfmaps.errors import VerifierError
from pytest_bpfmaps.events.printk import Printk
from pytest_bpfmaps.kernel import polling
from pytest_bpfmaps.kernel.open_resources import keep
from pytest_bpfmaps.maps import base, map_by_id, pinned_map
from pytest_bpfmaps.maps.create import CType, create_map
from pytest_bpfmaps.maps.families.registry import maps_by_name
from pytest_bpfmaps.maps.pins import Pins
from pytest_bpfmaps.objects import LoadedObject, OpenedObject
from pytest_bpfmaps.objects.any_map import Map
from pytest_bpfmaps.objects.observer import Observer
from pytest_bpfmaps.objects.program_output import Output

if TYPE_CHECKING:
    from pytest_bpfmaps.loaders.process import LoaderProcess
    from pytest_bpfmaps.loaders.readiness import Ready

Closeable = TypeVar("Closeable", bound="contextlib.AbstractContextManager[Any]")

_OF_OPEN = frozenset({"code", "cflags", "defines", "pin_root", "btf", "kconfig"})
"""The options of `Bpf.load` that `Bpf.open` takes; the others are those of `OpenedObject.configure`."""


class Bpf:
    """Compiles and loads BPF programs. `close` closes everything that it made, last to first.

    `folders` are searched for sources, in order. `compiler` turns sources into objects. With `portable`, code
    that libbpf would refuse raises a `PortabilityError`; without it, such code gives a warning.
    `observer` is told of every object that is loaded. `temporary` returns the folder for files of agents.
    """

    def __init__(
        self,
        compiler: Compiler,
        folders: Sequence[Path] = (),
        *,
        portable: bool = False,
        observer: Observer[OpenedObject, LoadedObject] | None = None,
        temporary: Callable[[], Path] = Path.cwd,
    ) -> None:
        self._compiler = compiler
        self._observer = observer
        self._portable = portable
        self._temporary = temporary
        self._folders = list(folders)
        self._sources = Sources(compiler, self._folders)
        self._stack = contextlib.ExitStack()
        self._opened: list[OpenedObject] = []
        self._loaded: list[LoadedObject] = []
        self._pins = Pins()
        self._stack.callback(self._pins.close)
        self._output = Output()
        self._stack.callback(self._output.close)

    def load(
        self,
        source: Source | Sequence[Source] | None = None,
        *,
        code: str | None = None,
        globals: Mapping[str, Any] | None = None,
        max_entries: Mapping[str, int] | None = None,
        maps: Mapping[str, Mapping[str, Any]] | None = None,
        programs: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
        reuse: Mapping[str, base.Map] | None = None,
        cflags: Sequence[str] = (),
        defines: Mapping[str, Any] | None = None,
        pin_root: Source | None = None,
        btf: Source | None = None,
        kconfig: Mapping[str, bool | int | str] | None = None,
    ) -> LoadedObject:
        """Compiles `source` (a ``.bpf.c``; a ``.bpf.o`` is taken as it is) or C text, and loads it.

        - `globals` sets ``const volatile``, ``.data`` and ``.bss`` variables before the load.
        - `max_entries` resizes maps by name.
        - `maps` sets everything else that a loader can set, by a map's name:
          ``{"counts": {"type": "lru_hash", "key_size": 8}}``; see `MapSpec`.
        - `programs` names the programs to load (default: all). Or it gives each of them settings,
          ``{"p": {"type": "xdp"}}``; see `ProgramSpec`. ``{"p": {"autoload": False}}`` loads all others.
        - `reuse` puts live maps in place of new ones.
        - `pin_root` is the folder of maps that are pinned by name (default: `self.pin_root`).
        - `btf` is a file with types. CO-RE relocations use them in place of the kernel's own.
        - `kconfig` replaces options of the kernel's configuration for ``__kconfig`` variables:
          ``{"CONFIG_HZ": 1000, "CONFIG_XFS_FS": "m", "CONFIG_BPF_LSM": False}``.

        A list of sources and objects is linked into one object. Raises `CompileError`, `LoadError`,
        `VerifierError`, `NameLookupError`, `MapTypeError` …
        """
        opened = self.open(
            source, code=code, cflags=cflags, defines=defines, pin_root=pin_root, btf=btf, kconfig=kconfig
        )
        opened.configure(globals=globals, max_entries=max_entries, maps=maps, programs=programs, reuse=reuse)
        return opened.load()

    @property
    def opened(self) -> Sequence[OpenedObject]:
        """The objects that `open` and `load` have opened, also those that the kernel refused."""
        return self._opened

    @property
    def loaded(self) -> Sequence[LoadedObject]:
        """What `load` has loaded, here and of the objects that `open` has returned; also what is closed."""
        return self._loaded

    def open(
        self,
        source: Source | Sequence[Source] | None = None,
        *,
        code: str | None = None,
        cflags: Sequence[str] = (),
        defines: Mapping[str, Any] | None = None,
        pin_root: Source | None = None,
        btf: Source | None = None,
        kconfig: Mapping[str, bool | int | str] | None = None,
    ) -> OpenedObject:
        """Compiles and opens an object, and does not load it. The caller may configure it before the load.

        What its `load` returns is closed by `close`, as what `Bpf.load` returns.
        """
        path = self._sources.compile(source, code, cflags, defines)
        name = " + ".join(Path(each).name for each in each_source(source)) or path.name
        root = None if pin_root is None else str(pin_root)
        types = None if btf is None else self._sources.beside(btf)
        counts = self._observer is not None
        opened = OpenedObject(
            path,
            name=name,
            btf=types,
            kconfig=kconfig,
            pins=self._pins,
            pin_root=root,
            portable=self._portable,
            observer=self._observer,
            counting=self._sources.counting(source, code, cflags, defines) if counts else None,
            sources=self._sources.found(source) if counts else (),
            loaded=self._keep_loaded,
        )
        self._keep(opened)
        self._opened.append(opened)
        self._output.listen(opened)
        return opened

    def compile(
        self,
        source: Source | Sequence[Source] | None = None,
        *,
        code: str | None = None,
        cflags: Sequence[str] = (),
        defines: Mapping[str, Any] | None = None,
    ) -> Path:
        """Returns the path of the compiled object. Several sources and objects are linked into one.

        Raises `CompileError` with clang's diagnostics, or with libbpf's when the objects can't be linked.
        """
        return self._sources.compile(source, code, cflags, defines)

    def rejects(
        self, source: Source | None = None, *patterns: str | re.Pattern[str], **options: Any
    ) -> VerifierError:
        """Loads what the verifier must reject, and returns its error.

        `patterns` are regular expressions. The verifier's log must have a match for each of them, in this
        order. `options` are those of `load`. When ``code=`` is among them, `source` is the first pattern.
        Raises `ExpectationError` (an `AssertionError`) when the kernel accepts the programs, or when a
        pattern has no match. Raises what `load` raises when it fails for another reason.
        """
        from pytest_bpfmaps.selftests.rejects import expect_rejection

        wanted: Sequence[Any] = patterns
        if source is not None and options.get("code") is not None:
            wanted, source = (source, *patterns), None
        opening = {name: value for name, value in options.items() if name in _OF_OPEN}
        configuring = {name: value for name, value in options.items() if name not in _OF_OPEN}
        return expect_rejection(lambda: self.open(source, **opening).configure(**configuring), wanted)

    def create_map(
        self,
        type: str,
        *,
        key: CType = None,
        value: CType = None,
        max_entries: int | None = None,
        flags: int = 0,
        name: str | None = None,
        inner: base.Map | Mapping[str, Any] | None = None,
        extra: int = 0,
    ) -> Map:
        """Creates a map without an object.

        `type` is the kernel's name in lower case without prefix, ``"percpu_array"``.

        `key` and `value` are C types as text, ``"u32"``, ``"struct { u32 a; u64 b; }"``, or sizes in bytes.
        Some map types always have the same key or value (indices, references to maps and programs): these
        need none. A ring buffer's `value` is the type of its records.

        `max_entries` counts elements. For a ring buffer it counts bytes, for an arena pages. `flags` are
        ``BPF_F_*``; the flags that the type requires are added. `inner` is the model for the maps in a map of
        maps: a live map, or a mapping of these arguments. `extra` is ``map_extra``: the number of a bloom
        filter's hash functions.

        Raises `MapTypeError` for text that is no C type and for missing or superfluous parts. Raises
        `MapError` with errno when the kernel refuses the map, and `UnsupportedError` when it lacks the type.
        Source: ``BPF_MAP_CREATE``, bpf(2).
        """
        return self._keep_map(
            create_map(
                self._compiler,
                type,
                key=key,
                value=value,
                max_entries=max_entries,
                flags=flags,
                name=name,
                inner=inner,
                extra=extra,
                pins=self._pins,
            )
        )

    def map_by_id(self, map_id: int) -> Map:
        """Returns the map that has this id in the kernel, no matter who made it.

        Raises `MapError` with errno: ENOENT if there is no such map, EPERM without the privilege. Source:
        ``BPF_MAP_GET_FD_BY_ID``, Linux 4.13.
        """
        return self._keep_map(map_by_id(map_id, self._pins))

    def maps_by_name(self, name: str) -> list[Map]:
        """Returns all maps of the running kernel with that name, oldest first.

        The kernel keeps the first 15 characters of a name. Raises `MapError` with errno when the kernel
        refuses to list its maps. Source: ``BPF_MAP_GET_NEXT_ID``, Linux 4.13.
        """
        return [self._keep_map(m) for m in maps_by_name(name, self._pins)]

    def typed(self, the_map: base.Map, *, key: str | None = None, value: str | None = None) -> Map:
        """Returns the same map with C types, for a map whose loader gave the kernel none, as bpftrace does.

        `key` and `value` are C types as text, as for `create_map`. A part that is left out stays bytes.
        Raises `MapTypeError` for text that is no C type, or whose size is not that of the map.
        """
        from pytest_bpfmaps.maps.typed import typed_map

        return self._keep_map(typed_map(self._compiler, the_map, key, value, self._pins))

    def pinned(self, path: Source) -> Map:
        """Returns the map that is pinned at `path`. A relative path is below `pin_root`.

        Raises `MapError` with errno: ENOENT if there is no pin, EINVAL for the pin of something else. Source:
        ``BPF_OBJ_GET``, Linux 4.4.
        """
        return self._keep_map(pinned_map(self._pins.path(path), self._pins))

    def start(
        self,
        command: Sequence[Source],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Source | None = None,
        netns: Any = None,
        cgroup: Source | None = None,
        user: str | int | None = None,
        caps: Iterable[str] | None = None,
        seccomp: Mapping[str, Any] | Source | None = None,
        token: Mapping[str, str | Iterable[str]] | None = None,
        ready: Ready = None,
        timeout: float = 10.0,
    ) -> LoaderProcess:
        """Starts a program that loads BPF programs itself, on the kernel of the test.

        - `command` is the program and its arguments. A relative path with a slash is looked up in `cwd` if
          that is given, else beside the test's file, then in `bpf_paths` and in the current folder.
        - `env` replaces the environment. The process starts in the network namespace `netns` and in the
          cgroup `cgroup`.
        - `user` is a name or number. `caps` are all capabilities that it has, ``["BPF", "PERFMON"]``.
        - `seccomp` is a container's profile, a JSON file or a mapping; its filter is on the process.
        - `token` is what a BPF token delegates, ``{"delegate_cmds": "any", "delegate_progs": ["xdp"]}``; the
          process has capabilities only in a user namespace of its own (Linux 6.9).
        - `ready` is what to wait for: a line of output with a text or pattern, a file (a relative `Path` is
          below the folder that the process starts in), a TCP port, or a function that gets the process and
          returns something true.
        - `timeout` is how long that may take, in seconds. The wait is longer where the CPU is emulated.

        The teardown ends the process and its children. Raises `LoaderError` if the process can't be started,
        or ends before it is ready. Raises `CaptureTimeoutError` (an `AssertionError`) if it is not ready in
        time.
        """
        from pytest_bpfmaps.loaders.arguments import check_ready, seconds_of
        from pytest_bpfmaps.loaders.spawn import privileges
        from pytest_bpfmaps.loaders.start import start_process

        check_ready(ready)
        seconds_of(timeout)
        process = start_process(
            command,
            self._folders,
            env=env,
            cwd=cwd,
            netns=netns,
            cgroup=cgroup,
            rights=privileges(user, caps, seccomp, token),
            folder=self._temporary,
        )
        started = self._keep_process(process)
        self._output.add(started.sections)
        if ready is not None:
            started.wait_until_ready(ready, timeout)
            self._tell_of(started)
        return started

    def attach_to(self, pid: int) -> LoaderProcess:
        """Returns the process with that id, which something else started. The teardown does not end it.

        Raises `LoaderError` if there is no such process.
        """
        from pytest_bpfmaps.loaders.start import attach_to_process

        return self._keep_process(attach_to_process(pid, self._temporary))

    def nothing_left(self, agent: LoaderProcess, timeout: float = 1.0) -> None:
        """Checks that an agent that was stopped left nothing attached, pinned or running.

        It waits for at most `timeout` seconds, because the kernel frees some programs a moment later. The
        agent's maps can't be read afterwards. Raises `ExpectationError` (an `AssertionError`), which names
        each thing.
        """
        agent.expect_nothing_left(timeout)

    def printk(self) -> Printk:
        """Returns the lines that programs print with ``bpf_printk`` from now on; use it with ``with``.

        Other programs of the machine print, too. Their lines are left out, unless a line fits a format of
        this fixture's programs. Raises `UnsupportedError` where tracefs is absent.
        """
        return self._keep(self._output.printk())

    @property
    def pin_root(self) -> Path:
        """A folder on a bpf file system for the pins of this fixture. `close` removes it and the pins."""
        return self._pins.root

    @property
    def program_output(self) -> Output:
        """What the programs of this fixture print, for the report of a test that fails."""
        return self._output

    def wait_until(self, condition: Callable[[], Any], timeout: float = 1.0) -> Any:
        """Calls `condition` until it returns something true, and returns that.

        `timeout` is in seconds. The wait is longer where the CPU is emulated. An `AssertionError` in
        `condition` counts as false. Raises `CaptureTimeoutError` (an `AssertionError`), which says what
        `condition` returned last.
        """
        return polling.wait_until(condition, timeout)

    def close(self) -> None:
        """Detaches, unpins and closes everything that came from here, last to first. Safe to call again."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _keep_loaded(self, loaded: LoadedObject) -> None:
        self._keep(loaded)
        keep(loaded.descriptors)
        self._output.watch(list(loaded.programs))
        self._loaded.append(loaded)

    def _keep_map(self, found: base.Map) -> Map:
        keep([found.fd])
        return cast(Map, self._keep(found))

    def _keep_process(self, process: LoaderProcess) -> LoaderProcess:
        self._keep(process)
        self._stack.callback(self._tell_of, process)  # before it is closed
        return process

    def _tell_of(self, process: LoaderProcess) -> None:
        if self._observer is not None:
            self._observer.other_process(Path(process.command[0]).name, process.programs_so_far)

    def _keep(self, made: Closeable) -> Closeable:
        self._stack.push(made)
        return made
