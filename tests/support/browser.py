"""Debian's chromium, headless, driven over a pipe by the DevTools protocol: pages, keys, console, screenshots."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress

from tests.support.processes import start_process

CHROMIUM = shutil.which("chromium")
PATIENCE = 600
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9,
        "Backspace": 8}  # fmt: skip
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
           "--remote-debugging-pipe"]  # fmt: skip


class Browser:
    """A browser with one page.

    Attributes:
        errors: what its console reported as an error, exceptions included.
    """

    def __init__(self, folder, width=1280, height=900, dark=False, language="en-US"):
        (to_them, self._out), (self._in, from_them) = os.pipe(), os.pipe()
        options = [*OPTIONS, f"--user-data-dir={folder}", f"--window-size={width},{height}", f"--lang={language}",
                   f"--accept-lang={language}"]  # fmt: skip
        script = f'exec "$@" 3<&{to_them} 4>&{from_them}'
        self._process = start_process(["bash", "-c", script, "bash", CHROMIUM, *options, "about:blank"],
                                         pass_fds=[to_them, from_them], stderr=subprocess.DEVNULL)  # fmt: skip
        os.close(to_them)
        os.close(from_them)
        self._number, self._session, self._read, self.errors = 0, None, b"", []
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 600)  # fmt: skip
        self.send("Emulation.setUserAgentOverride", userAgent="test", acceptLanguage=language)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with suppress(OSError):
            os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait(PATIENCE)

    def send(self, method, **params):
        """The result of a command; events that come meanwhile are looked at."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._next()
            if found.get("id") == self._number:
                assert "error" not in found, found
                return found["result"]
            self._note(found)

    def _next(self):
        while b"\0" not in self._read:
            part = os.read(self._in, 1 << 16)
            assert part, "chromium has ended"
            self._read += part
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def _note(self, event):
        method, params = event.get("method"), event.get("params", {})
        if method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.errors.append(params["entry"]["text"])
        if method == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        if method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.errors.append(str(params["args"]))

    def open(self, address):
        self.send("Page.navigate", url=address)

    def run(self, script):
        """The value of an expression."""
        found = self._evaluated(script)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _evaluated(self, script):
        return self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)

    def until(self, script):
        """Waits until an expression is true, and returns it; an error is a page that is not there yet."""
        start = time.monotonic()
        while "exceptionDetails" in (found := self._evaluated(script)) or not found["result"].get("value"):
            assert time.monotonic() - start < PATIENCE, (script, self.run("document.body.innerText")[:500], self.errors)
            time.sleep(0.05)
        return found["result"]["value"]

    def press(self, *keys):
        for key in keys:
            event = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
            text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
            self.send("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
