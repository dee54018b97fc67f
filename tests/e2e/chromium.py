"""A headless Chromium, spoken to through pipes (the DevTools protocol); Python's standard library only."""
import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
    """Its path, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Browser:
    """One tab. What a page complains of is kept in `complaints`."""

    def __init__(self, program):
        self.folder = tempfile.TemporaryDirectory()
        self.next, self.rest, self.answers, self.complaints, self.session = 0, b"", {}, [], None
        to_read, self.write_fd = os.pipe()
        self.read_fd, to_write = os.pipe()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--remote-debugging-pipe",
                   "--disable-background-networking", "--disable-component-update", "--no-proxy-server", "--user-data-dir=" + self.folder.name]
        self.process = subprocess.Popen(["sh", "-c", f"exec \"$@\" 3<&{to_read} 4>&{to_write}", "sh", program, *options, "about:blank"],
                                        pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(domain + ".enable")

    # ---- the protocol

    def call(self, method, **parameters):
        self.next += 1
        message = {"id": self.next, "method": method, "params": parameters, **({"sessionId": self.session} if self.session else {})}
        os.write(self.write_fd, json.dumps(message).encode() + b"\0")
        number, end = self.next, time.time() + 60
        while number not in self.answers:
            self.receive(end - time.time())
        answer = self.answers.pop(number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def receive(self, seconds):
        assert seconds > 0 and select.select([self.read_fd], [], [], seconds)[0], "chromium says nothing"
        some = os.read(self.read_fd, 1 << 20)
        assert some, "chromium has ended"
        *messages, self.rest = (self.rest + some).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            else:
                self.note(message["method"], message["params"])

    def note(self, method, what):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(what["exceptionDetails"].get("exception", {}).get("description") or what["exceptionDetails"]["text"])
        elif method == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(what["args"]))
        elif method == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.complaints.append(what["entry"]["text"])

    # ---- a page

    def size(self, width, height, phone=False, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def open(self, url):
        assert not self.call("Page.navigate", url=url).get("errorText")
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, (expression, result)
        return result["result"].get("value")

    def wait(self, expression, seconds=20):
        end = time.time() + seconds
        while not (value := self.value(expression)):
            assert time.time() < end, f"expected {expression}; the page says: {self.value('document.body.innerText')[-600:]}"
            time.sleep(0.02)
        return value

    def click(self, selector):
        """As a hand does it: where the middle of it is, and nothing may lie over it."""
        box = self.value(f"(e => {{ e.scrollIntoView({{block: 'nearest'}}); const b = e.getBoundingClientRect(); const x = b.x + b.width / 2, "
                         f"y = b.y + b.height / 2; return [x, y, e.contains(document.elementFromPoint(x, y))]; }})(document.querySelector({selector!r}))")
        assert box[2], f"{selector} is covered, or not on the screen"
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def write(self, selector, text):
        self.click(selector)
        self.call("Input.insertText", text=text)

    def press(self, key, code, text=""):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, text=text if kind == "keyDown" else "")

    def screenshot(self, path):
        with open(path, "wb") as f:
            f.write(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            self.session = None
            self.call("Browser.close")
            self.process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.write_fd)
        os.close(self.read_fd)
        shutil.rmtree(self.folder.name, ignore_errors=True)
