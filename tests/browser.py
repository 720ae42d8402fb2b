"""Drives a headless Chromium by its own protocol, over two pipes: no package is needed.

https://chromedevtools.github.io/devtools-protocol/ has the commands.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

# Chromium reads commands from descriptor 3, and writes to 4. The pipes have high numbers before.
_START = """
import os, sys
commands, answers, *command = sys.argv[1:]
os.dup2(int(commands), 3)
os.dup2(int(answers), 4)
os.execv(command[0], command)
"""


def _pipe() -> tuple[int, int]:
    """Returns a pipe whose descriptors are none of the two that Chromium takes."""
    ends = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return high[0], high[1]


class Browser:
    """A page in a headless browser. It reaches no network. `profile` is a folder for what Chromium writes."""

    def __init__(self, path: str, profile: Path) -> None:
        (commands, self._write), (self._read, answers) = _pipe(), _pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        options += [f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, str(commands), str(answers), path, *options],
            pass_fds=(commands, answers),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(commands)
        os.close(answers)
        self._rest, self._number, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self) -> None:
        targets = self.command("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command, and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, f"{method}: {found['error']}"
                result: dict[str, Any] = found["result"]
                return result
            self.events.append(found)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(line)
        return found

    def look(self, width: int, *, dark: bool = False, height: int = 900) -> None:
        """Sets the width of the page in pixels, and whether its reader wants a dark page."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.command("Emulation.setEmulatedMedia", features=features)

    def open(self, path: Path) -> None:
        """Opens a file, and waits until it is loaded."""
        self.events.clear()
        self.command("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def run(self, script: str) -> Any:
        """Returns the value of an expression in JavaScript."""
        found = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str, code: int, text: str = "") -> None:
        """Presses a key, and releases it."""
        facts: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": code}
        more = {"text": text} if text else {}
        self.command("Input.dispatchKeyEvent", type="keyDown", **facts, **more)
        self.command("Input.dispatchKeyEvent", type="keyUp", **facts)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Writes a picture of the page as PNG."""
        found = self.command("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def close(self) -> None:
        """Ends the browser. Safe to call again."""
        if self._process.returncode is None:
            with contextlib.suppress(OSError, AssertionError):
                self._session = ""
                self.command("Browser.close")
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(30)
            if self._process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, 9)
                self._process.wait()
            os.close(self._write)
            os.close(self._read)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
