"""The guest's first process. It mounts, greets the gateway, takes the job, and becomes an execnet worker.

It is a script by itself. It must not import this package, because the guest's pytest has to import its
modules first. It sends and receives JSON lines through the virtio-serial port ``bpfmaps.control``. The
worker's stdin and stdout are the port ``bpfmaps.stream``. Process 1 later uses ``bpfmaps.alarm``.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import glob
import json
import os
import re
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from typing import Any

PORTS = ("bpfmaps.control", "bpfmaps.stream", "bpfmaps.alarm")
TAG = "bpfmaps.host"  # the name by which the guest mounts the host's files
OUTPUT = "bpfmaps.output"  # what the worker writes, where pytest does not capture it
TERMINAL = "bpfmaps.terminal"  # what a person types and sees: protocol/terminal.py
# The host looks for these texts among the last lines of the console.
CANNOT_MOUNT = "cannot mount the host's files"
NO_CARD = "cannot drive the network card"
STACKS = signal.SIGRTMAX  # supervisor.py sends it, and the worker writes its Python stacks
HOST_FILES = 9  # the descriptor of the host's plain root, opened by init.sh
SIOCADDRT, SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK = 0x890B, 0x8913, 0x8914, 0x8916, 0x891C
IFF_UP, RTF_UP, RTF_GATEWAY = 1, 1, 2
VIRTIO_NET = 1  # the device's number, include/uapi/linux/virtio_ids.h
# QEMU's user-mode network: the address that it expects of a guest, and the addresses that it offers.
ADDRESS, MASK, GATEWAY, NAME_SERVER = "10.0.2.15", "255.255.255.0", "10.0.2.2", "10.0.2.3"
CARD = "/sys/class/net/eth0"
MS_RDONLY, MS_BIND = 1, 4096
RB_AUTOBOOT = 0x1234567

# Type, target, options of the file systems that BPF programs and their tests expect.
MOUNTS = (
    ("proc", "/proc", None),
    ("sysfs", "/sys", None),
    ("devtmpfs", "/dev", None),
    ("devpts", "/dev/pts", "mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=0755"),
    ("bpf", "/sys/fs/bpf", "mode=0700"),
    ("cgroup2", "/sys/fs/cgroup", None),
    ("debugfs", "/sys/kernel/debug", None),
    ("tracefs", "/sys/kernel/tracing", None),
    ("securityfs", "/sys/kernel/security", None),
)
libc = ctypes.CDLL(None, use_errno=True)


LINKS = {
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
"""What programs and shells take for granted, and udev makes on other machines."""


def mount(
    source: str, target: str, kind: str | None = None, flags: int = 0, options: str | None = None
) -> None:
    """Calls mount(2). Ignores a file system or folder that this kernel lacks."""
    encoded = [s if s is None else s.encode() for s in (source, target, kind, options)]
    libc.mount(encoded[0], encoded[1], encoded[2], flags, encoded[3])


def mount_all(release: str, modules: str) -> None:
    """Mounts the kernel's file systems, and its modules."""
    for kind, target, options in MOUNTS:
        if target.startswith("/dev/"):
            os.makedirs(target, exist_ok=True)
        mount(kind, target, kind, 0, options)
    for link, target in LINKS.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(target, link)
    mount_modules(release, modules)


def mount_modules(release: str, modules: str) -> None:
    """Puts the kernel's modules, if it has any, where modprobe looks for them.

    If the host has headers of that kernel, the guest has their links, too: ``build`` and ``source``.
    """
    if modules:
        stored, folder = f"{modules}/lib/modules/{release}", f"/lib/modules/{release}"
        os.makedirs(folder, exist_ok=True)
        if os.path.lexists(f"{folder}/build"):
            lower = ":".join(re.sub(r"([\\:,])", r"\\\1", layer) for layer in (stored, folder))
            mount("modules", folder, "overlay", MS_RDONLY, f"xino=off,lowerdir={lower}")
        else:
            mount(stored, folder, flags=MS_BIND)


def loopback_up() -> None:
    """Brings the interface lo up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        interface_up(sock, b"lo")


def interface_up(sock: socket.socket, name: bytes) -> None:
    """Sets the flag IFF_UP of an interface, netdevice(7)."""
    flags = struct.unpack_from("h", fcntl.ioctl(sock, SIOCGIFFLAGS, struct.pack("16sh14x", name, 0)), 16)[0]
    fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | IFF_UP))


def network_up() -> None:
    """Configures the network card, if this machine has one."""
    devices = glob.glob("/sys/bus/virtio/devices/*/device")
    if VIRTIO_NET not in (int(open(path).read(), 16) for path in devices):  # noqa: SIM115
        return
    if not os.path.exists(CARD):
        os.system("PATH=/sbin:/usr/sbin:/bin:/usr/bin exec modprobe virtio_net")
    if not os.path.exists(CARD):
        raise OSError(f"bpfmaps: this kernel {NO_CARD} (it lacks virtio_net)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for request, value in ((SIOCSIFADDR, ADDRESS), (SIOCSIFNETMASK, MASK)):
            fcntl.ioctl(sock, request, struct.pack("16s16s8x", b"eth0", sockaddr(value)))
        interface_up(sock, b"eth0")
        every, flags = sockaddr("0.0.0.0"), RTF_UP | RTF_GATEWAY
        route = struct.pack("L16s16s16sH62x", 0, every, sockaddr(GATEWAY), every, flags)  # struct rtentry
        fcntl.ioctl(sock, SIOCADDRT, route)


def sockaddr(address: str) -> bytes:
    """Returns a ``struct sockaddr_in`` without a port."""
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def use_name_server() -> None:
    """Has names looked up by QEMU, which asks the host's name server. The host's own file may be a link."""
    if os.path.exists(CARD):
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/etc/resolv.conf")
        with open("/etc/resolv.conf", "w") as file:
            file.write(f"nameserver {NAME_SERVER}\n")


def open_port(name: str) -> int:
    """Opens the virtio-serial port called `name`, and returns a descriptor."""
    return os.open(find_port(name), os.O_RDWR | os.O_CLOEXEC)


def find_port(name: str) -> str:
    """Returns the device of the virtio-serial port called `name`. It needs no udev."""
    while True:  # QEMU tells the ports' names one by one; the gateway has a limit
        for path in glob.glob("/sys/class/virtio-ports/*/name"):
            with open(path) as file:
                if file.read().strip() == name:
                    return f"/dev/{path.split('/')[-2]}"
        time.sleep(0.005)


_rest: dict[int, bytes] = {}  # by descriptor: what came with the last line, and belongs to the next one


def read_line(fd: int) -> dict[str, Any]:
    """Returns the next JSON line of `fd`. Empty lines do not count."""
    data = _rest.pop(fd, b"").lstrip()
    while b"\n" not in data:
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            raise EOFError("the gateway is gone")
        data = (data + chunk).lstrip()
    text, _, _rest[fd] = data.partition(b"\n")
    line: dict[str, Any] = json.loads(text)
    return line


def has_line(fd: int) -> bool:
    """Returns whether something of the next line has come with the last one."""
    return bool(_rest.get(fd, b"").strip())


def apply(job: dict[str, Any], host_files: int) -> None:
    """Makes this process look like one that the host's pytest had started.

    `host_files` is a descriptor of the host's plain root. It is closed.
    """
    os.environ.clear()
    os.environ.update(job["env"])
    time.tzset()
    sys.path[:] = job["path"]
    os.umask(job["umask"])
    socket.sethostname(job["hostname"])
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536))
    use_name_server()
    for folder in job["plain"]:
        # The overlay may remember that a file was missing there. The plain view asks the host each time.
        mount(f"/proc/self/fd/{host_files}{folder}", folder, flags=MS_BIND)
    os.close(host_files)
    place_config(job["env"].get("BPFMAPS_KERNEL_CONFIG"))
    os.chdir(job["cwd"])


def place_config(path: str | None) -> None:
    """Puts the kernel's configuration where libbpf looks for the ``__kconfig`` values of an object."""
    if path:
        link = f"/boot/config-{os.uname().release}"
        os.makedirs("/boot", exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(link)
        os.symlink(path, link)


def serve(job: dict[str, Any], stream: int) -> None:
    """Runs an execnet worker on `stream` until it closes."""
    os.dup2(stream, 0)
    os.dup2(stream, 1)
    os.close(stream)
    sys.argv = ["-c"]
    sys.stdin, sys.stdout = os.fdopen(0, "r", 1, closefd=False), os.fdopen(1, "w", 1, closefd=False)
    from execnet import gateway_base

    model = gateway_base.get_execmodel(job["execmodel"])
    io: Any = gateway_base.init_popen_io(model)
    gateway_base.serve(io, id=job["id"])


def quiet_console() -> None:
    """Leaves warnings and worse on the console. It shows more while the kernel boots."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/printk", "w") as file:
        file.write("5")


def limit_hangs(timeout: float) -> None:
    """Has the kernel panic when a CPU or a task hangs for a third of the time that a test has.

    Then it is the test's fault, and the report names the kernel function that it hangs in. The kernel's own
    limit, 20 s, is never made shorter: an emulated guest whose host is busy stands still for seconds.
    """
    third = max(round(timeout / 3), 20)
    for path, seconds in (
        ("/proc/sys/kernel/watchdog_thresh", min(third // 2, 60)),  # the limit of a soft lockup is twice that
        ("/proc/sys/kernel/hung_task_timeout_secs", third),
        ("/proc/sys/kernel/hung_task_check_interval_secs", third // 4),
        ("/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout", min(third, 300)),
    ):
        with contextlib.suppress(OSError), open(path, "r+") as file:  # this kernel lacks that detector
            if file.read().strip() != str(seconds):  # else the kernel restarts the detector, in milliseconds
                file.seek(0)
                file.write(str(seconds))


def shorten_waits() -> None:
    """Has the kernel end each grace period of RCU at once.

    To detach a program, the kernel waits for one: 70 ms in an emulated guest, and 30 ms so.
    """
    with contextlib.suppress(OSError), open("/sys/kernel/rcu_expedited", "w") as file:
        file.write("1")


def main() -> None:
    """Does everything that process 1 does, then ends the machine."""
    print("bpfmaps: Python has started", flush=True)  # the gateway sees progress in each line
    release = os.uname().release
    mount_all(release, sys.argv[1] if len(sys.argv) > 1 else "")
    print("bpfmaps: all file systems are mounted", flush=True)
    quiet_console()
    loopback_up()
    network_up()
    control, stream, alarm = map(open_port, PORTS)
    hello = {"release": release, "uptime": float(open("/proc/uptime").read().split()[0])}  # noqa: SIM115
    os.write(control, json.dumps({"hello": hello}).encode() + b"\n")
    job = read_line(control)
    apply(job, HOST_FILES)
    written, writes = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.setsid()
        os.close(alarm)
        os.close(written)
        work(job, control, stream, writes)
        os._exit(0)
    for fd in (control, stream, writes):
        os.close(fd)
    from pytest_bpfmaps.vm.guest.supervisor import watch

    watch(alarm, worker, written)


def work(job: dict[str, Any], control: int, stream: int, stacks: int) -> None:
    """Runs the worker, which writes its Python stacks to `stacks` when asked; or else the job's command."""
    limit_hangs(job["timeout"])
    shorten_waits()
    if order := job.get("command"):
        from pytest_bpfmaps.vm.guest import command

        command.run(order, control, open_port(TERMINAL))
        return
    if job["output"]:
        output = open_port(OUTPUT)
        os.dup2(output, 2)
        os.close(output)
    faulthandler.register(STACKS, file=stacks)
    os.environ["BPFMAPS_CONTROL_FD"] = str(control)
    serve(job, stream)


if __name__ == "__main__":
    try:
        main()
    except BaseException:
        traceback.print_exc()  # to the console; if process 1 exited, the kernel would panic
    libc.reboot(RB_AUTOBOOT)
