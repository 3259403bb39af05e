"""Debian's chromium, headless, driven over a pipe with the DevTools protocol: pages, keys, console, screenshots."""

import base64
import json
import os
import shutil
import subprocess
import time
from contextlib import suppress

CHROMIUM = shutil.which("chromium")
KEYS = {"Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9,
        "Backspace": 8}  # fmt: skip
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
           "--remote-debugging-pipe"]  # fmt: skip
PATIENCE = 600
"""Seconds to wait for a page, or for the end of the browser: ten times what a busy machine needs."""


class BrowserError(RuntimeError):
    """A browser that has ended, refuses a command, or shows a page that does not become ready."""


class Browser:
    """A browser with one page.

    Attributes:
        errors: errors that the console reported, exceptions included.
    """

    def __init__(self, folder, width=1280, height=900, dark=False, language="en-US"):
        # With --remote-debugging-pipe chromium reads commands from descriptor 3 and answers on descriptor 4.
        command_input, self._out = os.pipe()
        self._in, answer_output = os.pipe()
        options = [*OPTIONS, f"--user-data-dir={folder}", f"--window-size={width},{height}", f"--lang={language}",
                   f"--accept-lang={language}"]  # fmt: skip
        script = f'exec "$@" 3<&{command_input} 4>&{answer_output}'
        self._process = subprocess.Popen(  # noqa: S603  -- the command is written above
            ["bash", "-c", script, "bash", CHROMIUM, *options, "about:blank"],  # noqa: S607
            pass_fds=[command_input, answer_output],
            stderr=subprocess.DEVNULL,
        )
        os.close(command_input)
        os.close(answer_output)
        self._command_number, self._session, self._buffer, self.errors = 0, None, b"", []
        targets = self.send("Target.getTargets")["targetInfos"]
        page_target = next(target for target in targets if target["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=page_target["targetId"], flatten=True)["sessionId"]
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
        """Send a command and return its result; errors among the events before it are recorded."""
        self._command_number += 1
        message = {"id": self._command_number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._command_number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer}")
                return answer["result"]
            self._record_error(answer)

    def _receive(self):
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise BrowserError("chromium has ended")
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _record_error(self, event):
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
        """Return the value of an expression."""
        answer = self._evaluate(script)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{script}: {answer}")
        return answer["result"].get("value")

    def _evaluate(self, script):
        return self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)

    def wait_for(self, script):
        """Wait until an expression is true, and return it; an exception means that the page is not there yet."""
        start = time.monotonic()
        while True:
            answer = self._evaluate(script)
            if "exceptionDetails" not in answer and answer["result"].get("value"):
                return answer["result"]["value"]
            if time.monotonic() - start > PATIENCE:
                text = self.run("document.body.innerText")[:500]
                raise BrowserError(f"{script} does not become true; the page: {text}; its errors: {self.errors}")
            time.sleep(0.05)

    def press(self, *keys):
        for key in keys:
            event = {"key": key, "windowsVirtualKeyCode": KEYS.get(key, ord(key[0].upper()))}
            text = {}
            if key == "Enter":
                text = {"text": "\r"}
            elif len(key) == 1:
                text = {"text": key}
            self.send("Input.dispatchKeyEvent", type="keyDown", **event, **text)
            self.send("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))
