"""Tests processes that `bpf.start` starts: their output, their ends, and the errors about both."""

from __future__ import annotations

import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_bpfmaps import CaptureTimeoutError, LoaderError
from pytest_bpfmaps.loaders import artifacts

FOREVER = "while :; do sleep 60; done"


def script(folder: Path, text: str, mode: int = 0o755) -> Path:
    path = folder / "agent"
    path.write_text(text)
    path.chmod(mode)
    return path


class TestStart:
    def test_status_and_output(self, bpf):
        agent = bpf.start(["sh", "-c", "echo one; echo two >&2; exit 3"])
        assert agent.wait() == agent.returncode == 3
        assert (agent.stdout, agent.stderr) == ("one\n", "two\n")
        assert agent.pids == []
        assert repr(agent) == f"<process {agent.pid} (sh), ended with exit status 3>"

    def test_environment_folder_and_input(self, bpf, tmp_path):
        agent = bpf.start(
            ["sh", "-c", "echo $WORD; pwd; cat"],
            env={"WORD": "yes", "PATH": os.environ["PATH"]},
            cwd=tmp_path,
        )
        assert agent.wait() == 0
        assert agent.stdout.split() == ["yes", str(tmp_path)]

    def test_a_path_beside_the_test(self, bpf, tmp_path, monkeypatch):
        script(tmp_path, "#!/bin/sh\necho $0\n")
        monkeypatch.chdir(tmp_path)
        agent = bpf.start(["./agent"])
        agent.wait()
        assert agent.stdout == f"{tmp_path}/agent\n"

    def test_signals(self, bpf):
        agent = bpf.start(["sh", "-c", FOREVER])
        assert agent.pids[0] == agent.pid
        agent.terminate()
        agent.kill()  # the sleep in it
        assert agent.wait() in (-signal.SIGTERM, -signal.SIGKILL)
        agent.terminate()
        agent.send_signal(signal.SIGTERM)

    def test_a_namespace(self, bpf, bpf_netns):
        inside = bpf_netns()
        agent = bpf.start(["readlink", "/proc/self/ns/net"], netns=inside)
        agent.wait()
        assert agent.stdout == f"net:[{inside.inode}]\n"

    def test_a_cgroup(self, bpf, bpf_cgroup):
        agent = bpf.start(["sh", "-c", FOREVER], cgroup=bpf_cgroup)
        assert agent.pid in bpf_cgroup.pids
        assert os.getpid() not in bpf_cgroup.pids

    def test_a_long_output_is_bounded(self, bpf):
        write = "import os; [os.write(1, b'x' * 99 + b'\\n') for _ in range(200_000)]; os.write(1, b'end\\n')"
        agent = bpf.start([sys.executable, "-c", write])
        assert agent.wait(60) == 0
        assert len(agent.stdout) < 100_000
        left_out = int(re.search(r"\[… ([\d,]+) bytes left out …\]", agent.stdout)[1].replace(",", ""))
        shown = agent.stdout.replace(f"\n[… {left_out:,} bytes left out …]\n", "")
        assert left_out + len(shown) == 200_000 * 100 + 4
        assert shown.endswith("x\nend\n")

    def test_nothing_stays_open(self, bpf):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(20):
            with bpf.start(["sh", "-c", "sleep 60 & sleep 60"]) as agent:
                pass
            assert agent.pids == []
            agent.close()
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the pipe of the shell that tidies up

    def test_one_that_has_ended_keeps_one_descriptor(self, bpf):
        """Its network namespace, where `bpf.nothing_left` looks. So a test can have many."""
        bpf.start(["true"]).wait()
        before = len(os.listdir("/proc/self/fd"))
        agents = [bpf.start(["sh", "-c", "echo yes"]) for _ in range(10)]
        for agent in agents:
            agent.wait()
            bpf.nothing_left(agent)
        assert len(os.listdir("/proc/self/fd")) <= before + len(agents)
        assert {agent.stdout for agent in agents} == {"yes\n"}


class TestReadiness:
    def test_a_line(self, bpf):
        agent = bpf.start(["sh", "-c", f"echo starting; echo attached to 3 >&2; {FOREVER}"], ready="attached")
        assert agent.wait_for_output(re.compile(r"to \d+")) == "attached to 3"

    def test_a_file(self, bpf, tmp_path):
        there = tmp_path / "ready"
        bpf.start(["sh", "-c", f"sleep 0.1; touch {there}; {FOREVER}"], ready=there)
        assert there.exists()

    def test_a_port(self, bpf, bpf_netns):
        inside = bpf_netns()
        server = "s = socket.create_server(('127.0.0.1', 8080)); print(1, flush=True); time.sleep(60)"
        agent = bpf.start([sys.executable, "-c", f"import socket, time; {server}"], netns=inside, ready=8080)
        assert agent.wait_for_output("1")

    def test_a_function(self, bpf):
        agent = bpf.start(["sh", "-c", f"echo a b; {FOREVER}"], ready=lambda agent: "b" in agent.stdout)
        assert agent.stdout == "a b\n"

    def test_it_does_not_come(self, bpf):
        with pytest.raises(CaptureTimeoutError) as failed:
            bpf.start(["sh", "-c", f"echo other; {FOREVER}"], ready="attached", timeout=0.3)
        assert re.fullmatch(
            r"waited for a line with 'attached' of process \d+ \(sh\): it did not come in 0.3 s"
            r"(?: \(as the CPU is emulated, 3 s\))?\n"
            r"  its stdout:\n    other\n"
            r"  -> if the program keeps its output in a buffer because it is no terminal, "
            r"start it by stdbuf: "
            r"bpf.start\(\['stdbuf', '-oL', 'sh', .*\]\)",
            str(failed.value),
        )
        with pytest.raises(CaptureTimeoutError, match="it runs, but has closed its stdout and its stderr"):
            bpf.start(["sh", "-c", f"exec >/dev/null 2>&1; {FOREVER}"], ready="attached", timeout=0.3)
        with pytest.raises(CaptureTimeoutError, match=r"waited for the file /nowhere .*: not in 0.1 s"):
            bpf.start(["sh", "-c", FOREVER], ready=Path("/nowhere"), timeout=0.1)
        with pytest.raises(CaptureTimeoutError, match=r"waited for TCP port 1 of process"):
            bpf.start(["sh", "-c", FOREVER], ready=1, timeout=0.1)

    @pytest.mark.parametrize(
        ("how", "why"),
        [
            ("exit 0", "with it, except pinned ones, and nothing of it runs in the background"),
            ("exit 7", "it ended with exit status 7"),
            ("exit 139", "it ended with exit status 139, which a shell gives after SIGSEGV"),
            ("kill -SEGV $$", "it was killed by SIGSEGV: it used memory that it does not have"),
            ("kill -KILL $$", "by SIGKILL: neither this fixture nor the OOM killer sent that signal"),
        ],
    )
    @pytest.mark.parametrize("ready", ["attached", Path("/nowhere")])
    def test_it_ends_before(self, bpf, how, why, ready):
        with pytest.raises(LoaderError) as failed:
            bpf.start(["sh", "-c", f"echo sorry >&2; {how}"], ready=ready)
        head, *rest = str(failed.value).splitlines()
        assert head.endswith(why)
        assert rest[:2] == ["  its stderr:", "    sorry"]
        assert rest[-1].startswith("  -> ")

    def test_a_signal_of_the_test_is_not_called_anothers(self, bpf):
        agent = bpf.start(["sh", "-c", "echo on; exec sleep 60"], ready="on")
        agent.send_signal(signal.SIGHUP)
        with pytest.raises(LoaderError, match=r"it was killed by SIGHUP\n"):
            agent.wait_for_output("never")

    def test_a_line_before_the_end_counts(self, bpf):
        agent = bpf.start(["echo", "attached"], ready="attached")
        assert agent.wait() == 0

    def test_a_library_is_missing(self, bpf, tmp_path):
        (tmp_path / "lib.c").write_text("int one(void) { return 1; }")
        (tmp_path / "main.c").write_text("int one(void); int main(void) { return one(); }")
        library, agent = tmp_path / "libone.so", tmp_path / "agent"
        subprocess.run(["gcc", "-shared", "-o", library, tmp_path / "lib.c"], check=True)
        subprocess.run(["gcc", "-o", agent, tmp_path / "main.c", library], check=True)
        library.unlink()
        with pytest.raises(
            LoaderError, match=r"status 127: the library \S*libone.so can't be loaded"
        ) as failed:
            bpf.start([agent], ready="ready to serve")
        assert "-> install the package that has it" in str(failed.value)

    def test_a_network_is_missing(self, bpf, bpf_netns):
        connect = "import socket; socket.create_connection(('192.0.2.1', 80))"
        with pytest.raises(LoaderError, match="it needs a network that is not there: Network is unreachable"):
            bpf.start([sys.executable, "-c", connect], netns=bpf_netns(), ready="ready to serve")


class TestRefusals:
    def test_no_such_command(self, bpf, tmp_path):
        with pytest.raises(LoaderError) as failed:
            bpf.start(["qzxwvkj-7"])
        assert str(failed.value) == (
            "cannot start qzxwvkj-7: there is no such command in PATH\n"
            "  -> install the package that has it, or give its path"
        )
        assert failed.value.errno == 2
        script(tmp_path, "#!/bin/sh\n")
        with pytest.raises(LoaderError, match=r"(?s)no such file in .*did you mean 'agent'\?"):
            bpf.start(["./agnet"], cwd=tmp_path)
        with pytest.raises(
            LoaderError, match=r"(?s)cannot start '\./agent -v': .*start\(\['\./agent', '-v'\]\)"
        ):
            bpf.start("./agent -v")
        with pytest.raises(LoaderError, match=r"cannot start with cwd='/nowhere': there is no such folder"):
            bpf.start(["true"], cwd="/nowhere")

    def test_not_executable(self, bpf, tmp_path):
        path = script(tmp_path, "#!/bin/sh\n", 0o644)
        with pytest.raises(LoaderError) as failed:
            bpf.start([path])
        assert str(failed.value) == f"cannot start {path}: it is not executable\n  -> chmod +x {path}"
        path.chmod(0o755)
        assert bpf.start([path]).wait() == 0
        with pytest.raises(LoaderError, match="it is a folder"):
            bpf.start([tmp_path])

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            (
                "#!/no/such/python3\n",
                "its interpreter /no/such/python3 does not exist\n  -> install python3, or",
            ),
            ("#!/bin/sh\r\n", r"its interpreter '/bin/sh\\r' does not exist|a line end of Windows"),
            ("#!\n", "its first line names no interpreter\n  -> write one there: #!/bin/sh"),
            ("echo\n", "it is no ELF file, and does not begin with '#!'\n  -> begin it with"),
            ("", "it is empty"),
        ],
    )
    def test_scripts(self, bpf, tmp_path, text, why):
        with pytest.raises(LoaderError, match=why):
            bpf.start([script(tmp_path, text)])

    def test_a_script_that_is_its_own_interpreter(self, bpf, tmp_path):
        path = script(tmp_path, f"#!{tmp_path}/agent\n")
        with pytest.raises(
            LoaderError, match=f"its interpreter {path} is a script, too, .*\n  -> name a program"
        ):
            bpf.start([path])

    def test_another_architecture(self, bpf, tmp_path):
        raw = bytearray(Path("/bin/true").resolve().read_bytes())
        struct.pack_into("<H", raw, 18, 243)  # EM_RISCV
        path = tmp_path / "agent"
        path.write_bytes(raw)
        path.chmod(0o755)
        own = os.uname().machine
        with pytest.raises(
            LoaderError, match=f"it is a binary for RISC-V, and this .*\n  -> build it for {own}"
        ):
            bpf.start([path])

    def test_another_c_library(self, bpf, tmp_path):
        (tmp_path / "main.c").write_text("int main(void) { return 0; }")
        path = tmp_path / "agent"
        loader = "/lib/ld-musl-of-nobody.so.1"
        subprocess.run(["gcc", "-o", path, tmp_path / "main.c", f"-Wl,--dynamic-linker={loader}"], check=True)
        with pytest.raises(
            LoaderError, match=f"its dynamic loader {loader} does not exist.*\n  -> install musl"
        ):
            bpf.start([path])

    def test_a_damaged_binary(self, bpf, tmp_path):
        path = tmp_path / "agent"
        path.write_bytes(b"\x7fELF")
        path.chmod(0o755)
        with pytest.raises(LoaderError, match="it is a damaged binary"):
            bpf.start([path])

    def test_users_and_capabilities(self, bpf):
        with pytest.raises(
            LoaderError, match="as user 'nobdy': there is no such user\n  -> did you mean 'nobody'"
        ):
            bpf.start(["true"], user="nobdy")
        with pytest.raises(LoaderError, match=r"with capability 'PERFMN': .*\n  -> did you mean 'PERFMON'"):
            bpf.start(["true"], caps=["PERFMN"])


class TestArtifacts:
    def test_a_copy(self, bpf, tmp_path):
        folder = tmp_path / "work"
        folder.mkdir()
        agent = bpf.start(["sh", "-c", "echo hello > report"], cwd=folder)
        agent.wait()
        assert agent.artifact("report").name == "report"
        assert agent.artifact(folder / "report", name="other").name == "other"
        with pytest.raises(LoaderError, match=r"cannot fetch 'missing' from .*/missing of .*: ENOENT"):
            agent.artifact("missing")

    def test_on_the_host(self, bpf, tmp_path):
        (tmp_path / "made").write_text("here")
        with bpf.start(["true"]) as agent:
            path = agent.artifact(tmp_path / "made", name="copy")
        assert path == tmp_path / "copy"
        assert not path.exists() or path.read_text() == "here"  # a guest has another /tmp

    def test_it_ends_meanwhile(self, bpf, tmp_path, monkeypatch):
        (tmp_path / "made").write_text("here")
        agent = bpf.start(["sleep", "60"])
        sources, usual = [], artifacts.fetch

        def fetch(source, *more):
            if not sources:
                agent.kill()
                agent.wait()
            sources.append(source)
            return usual(source, *more)

        monkeypatch.setattr(artifacts, "fetch", fetch)
        assert agent.artifact(tmp_path / "made", name="copy").name == "copy"
        assert sources == [Path(f"/proc/{agent.pid}/root{tmp_path}/made"), tmp_path / "made"]


class TestAttachTo:
    def test_another_process(self, bpf):
        with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as other:
            agent = bpf.attach_to(other.pid)
            bpf.wait_until(lambda: len(agent.pids) == 2, timeout=10)
            with pytest.raises(LoaderError, match="cannot wait for output"):
                agent.wait_for_output("x")
            agent.close()
            assert other.poll() is None
            again = bpf.attach_to(other.pid)
            again.kill()
            assert again.wait() is None
            assert other.wait() == -signal.SIGKILL

    def test_there_is_none(self, bpf):
        with subprocess.Popen(["true"]) as gone:
            pass
        with pytest.raises(
            LoaderError, match=f"cannot attach to process {gone.pid}: there is no such process"
        ):
            bpf.attach_to(gone.pid)


@pytest.mark.skipif(os.geteuid() != 0, reason="it needs root")
class TestPrivileges:
    def status(self, agent):
        assert agent.wait() == 0
        return dict(line.split(":\t", 1) for line in agent.stdout.splitlines())

    @pytest.mark.parametrize("user", [None, "nobody"])
    def test_just_these(self, bpf, user):
        status = self.status(bpf.start(["cat", "/proc/self/status"], caps=["BPF", "CAP_PERFMON"], user=user))
        wanted = f"{1 << 38 | 1 << 39:016x}"
        assert (status["CapEff"], status["CapPrm"], status["CapBnd"]) == (wanted, wanted, wanted)
        assert status["Uid"].split()[0] == ("0" if user is None else "65534")

    def test_none(self, bpf):
        status = self.status(bpf.start(["cat", "/proc/self/status"], caps=[]))
        assert int(status["CapEff"], 16) == 0
        status = self.status(bpf.start(["cat", "/proc/self/status"], user=1234))
        assert int(status["CapEff"], 16) == 0
        assert status["Gid"].split()[0] == "1234"

    @pytest.mark.parametrize(
        ("caps", "fix"),
        [
            ([], "add BPF to caps=. Not given: BPF is for maps"),
            (
                ["BPF"],
                "add NET_ADMIN or PERFMON to caps=. Not given: NET_ADMIN is for programs of the network",
            ),
            (
                ["BPF", "NET_ADMIN"],
                "add PERFMON or SYS_ADMIN to caps=. Not given: PERFMON is for programs that",
            ),
            (
                ["BPF", "NET_ADMIN", "PERFMON"],
                "a file may have other owners; if the agent makes a user namespace",
            ),
        ],
    )
    def test_what_was_missing(self, bpf, caps, fix):
        command = ["bash", "-c", "echo 1 > /proc/sys/kernel/panic_on_oops"]
        with pytest.raises(LoaderError) as failed:
            bpf.start(command, user="nobody", caps=caps, ready="never")
        assert "the kernel refused something (Permission denied), and user 'nobody' had " in str(failed.value)
        assert f"  -> {fix}" in str(failed.value)

    def test_the_call_that_was_refused_says_which_is_missing(self, bpf):
        said = "libbpf: prog 'p': failed to create kprobe 'f' perf event: perf_event_open: Permission denied"
        command = ["bash", "-c", f'echo "{said}" >&2; exit 1']
        with pytest.raises(LoaderError, match=r"-> add PERFMON to caps="):
            bpf.start(command, user="nobody", caps=["BPF"], ready="never")
        with pytest.raises(LoaderError, match=r"-> add BPF to caps="):
            bpf.start(command, user="nobody", caps=["NET_ADMIN"], ready="never")

    def test_a_folder_of_another_user(self, bpf):
        with tempfile.TemporaryDirectory() as folder:
            path = script(Path(folder), "#!/bin/sh\nexit 3\n")
            wanted = f"its user may not enter the folder {folder}\n  -> chmod o+x {folder}, or copy"
            with pytest.raises(LoaderError, match=re.escape(wanted)):
                bpf.start([path], user="nobody")
            Path(folder).chmod(0o701)  # the remedy
            assert bpf.start([path], user="nobody").wait() == 3
