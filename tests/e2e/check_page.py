"""The page at `/` in a real browser: desktop and phone, light and dark.

usage: check_page.py SCRIPTED_SERVER MODEL FOLDER [--only NAME]
Screenshots go into FOLDER. Needs Python's standard library, and Chromium; exits with 77 where there is none.
"""
import argparse
import http.client
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "clients"))
import chromium  # noqa: E402
from http_wire import run_cases  # noqa: E402
from served import Server  # noqa: E402

A = B = S = None  # the arguments, the browser, the server
SIZES = {"desktop": (1280, 800, False), "phone": (375, 667, True)}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {
    "city": {"type": "string"}, "unit": {"type": "string"}}}}}]
ANSWER = "[...document.querySelectorAll('.turn.answer')].at(-1)"


def serve():
    return Server([A.scripted_server, "-m", A.model, os.path.join(HERE, "page_script.json")])


def shot(name):
    B.screenshot(os.path.join(A.folder, name + ".png"))


def fresh(size="desktop", dark=False):
    width, height, phone = SIZES[size]
    B.size(width, height, phone, dark)
    B.open(S.base + "/")
    B.value("localStorage.clear(), sessionStorage.clear(), 0")
    B.open(S.base + "/?again")
    B.wait("document.getElementById('model').textContent.includes('tokens')")


def say(text):
    B.write("#input", text)
    B.click("#send")


def answered():
    """Waits for the end of an answer; what stands below it."""
    B.wait("!document.querySelector('.phase') && !document.getElementById('send').hidden", 40)
    return B.value(f"[...{ANSWER}.querySelectorAll('.facts')].map(e => e.textContent).join('|')")


def text_of_answer():
    return B.value(f"{ANSWER}?.querySelector(':scope > .text')?.textContent || ''")


def check_fits():
    """Nothing is wider than the window but code in its own box, and no control is smaller than a finger on a phone."""
    wide = B.value("""[...document.querySelectorAll('body, body *')].filter(e => {
        if (!e.checkVisibility() || e.closest('pre') && e.tagName !== 'PRE') return false;
        const b = e.getBoundingClientRect();
        return b.width && (b.right > innerWidth + 0.5 || b.left < -0.5);
    }).map(e => e.tagName + '.' + e.className + '#' + e.id + ' ' + Math.round(e.getBoundingClientRect().right))""")
    assert not wide, wide
    scroll = B.value("[document.scrollingElement.scrollWidth, innerWidth, document.getElementById('turns').scrollWidth, "
                     "document.getElementById('turns').clientWidth, document.scrollingElement.scrollHeight, innerHeight]")
    assert scroll[0] <= scroll[1] and scroll[2] <= scroll[3] and scroll[4] <= scroll[5], f"it scrolls: {scroll}"
    small = B.value("[...document.querySelectorAll('button, input, select, summary')].filter(e => e.checkVisibility() && "
                    "e.getBoundingClientRect().height < 24).map(e => e.outerHTML)")
    assert not small, small


def check_quiet():
    assert not B.complaints, B.complaints
    assert B.value("document.title") != "broken"


def running():
    """Requests at the server."""
    c = http.client.HTTPConnection("127.0.0.1", S.port, timeout=10)
    c.request("GET", "/metrics")
    text = c.getresponse().read().decode()
    c.close()
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(("llamacpp:requests_processing ", "llamacpp:requests_deferred ")))


def wait_server_idle():
    end = time.time() + 10
    while running():
        assert time.time() < end, "the server still works for a page that stopped"
        time.sleep(0.05)


def stream_of(size):
    """A message and its answer, as they look while they come."""
    fresh(size)
    check_fits()
    assert B.value("(e => e.scrollWidth <= e.clientWidth)(document.getElementById('model'))"), "the model's name is cut"
    shot(f"{size}-empty")
    say("[tide] When may the boat enter?\n\nShe needs a bit of water under her.")
    assert B.value("document.getElementById('input').value") == ""
    note = B.wait("/reading prompt ([\\d,]+)\\/([\\d,]+)/.exec(document.querySelector('.phase')?.textContent)?.slice(1)")
    read = {int(note[0].replace(",", ""))}
    total = int(note[1].replace(",", ""))
    photographed = False
    while (text := B.value("document.querySelector('.phase')?.textContent || ''")).startswith(("reading", "waiting")):
        if found := [word for word in text.split() if "/" in word and "tok" not in word]:
            read.add(int(found[0].split("/")[0].replace(",", "")))
        if len(read) > 3 and not photographed:
            photographed = True
            check_fits()
            shot(f"{size}-reading")
            assert "tok/s" in text, text
    assert len(read) > 3 and max(read) <= total, read
    lengths = set()
    photographed = False
    while text := B.value("document.querySelector('.phase')?.textContent || ''"):
        lengths.add(len(text_of_answer()))
        if "tok/s" in text and not photographed:
            photographed = True
            check_fits()
            shot(f"{size}-writing")
            assert B.value("document.getElementById('stop').checkVisibility() && !document.getElementById('send').checkVisibility()")
    assert photographed, "no speed was shown while it wrote"
    assert len(lengths) > 10, f"the text came in {len(lengths)} pieces"
    facts = answered()
    for part in ("read ", "wrote ", " tok/s", "nvfp4 / bf16"):
        assert part in facts, facts
    written = text_of_answer()
    assert written.startswith("The tide is high at noon.") and "def clearance(" in written, written
    assert B.value(f"{ANSWER}.querySelectorAll('pre').length") == 1 and ":def clearance" in written, "blank lines around the code"
    assert B.value("(t => t.scrollHeight - t.scrollTop - t.clientHeight)(document.getElementById('turns'))") < 2, "it did not follow"
    check_fits()
    shot(f"{size}-answered")
    check_quiet()


def case_a_stream_on_a_desktop():
    stream_of("desktop")


def case_a_stream_on_a_phone():
    stream_of("phone")


def set_tools(size):
    B.click("#settings")
    B.wait("document.getElementById('dialog').open")
    check_fits()
    assert B.value("(b => b.bottom <= innerHeight && document.getElementById('dialog').contains(document.elementFromPoint(b.x + 5, b.bottom - 3)))"
                   "(document.getElementById('close').getBoundingClientRect())"), "the button that ends the settings is not in sight"
    B.write("#tools", "[")
    B.click("#close")
    assert B.wait("document.getElementById('wrong').checkVisibility() && document.getElementById('wrong').textContent")
    shot(f"{size}-settings")
    B.value("document.getElementById('tools').value = '', 0")
    B.write("#tools", json.dumps(TOOLS))
    B.click("#close")
    B.wait("!document.getElementById('dialog').open")


def tools_on(size):
    fresh(size)
    set_tools(size)
    say("[weather] How is it in Lisbon?")
    answered()
    assert B.value(f"{ANSWER}.querySelector('.call b').textContent") == "weather"
    assert json.loads(B.value(f"{ANSWER}.querySelector('.call pre').textContent")) == {"city": "Lisbon", "unit": "celsius"}
    assert B.value(f"{ANSWER}.querySelector('form textarea') === document.activeElement")
    check_fits()
    shot(f"{size}-call")
    B.write(".turn.answer form textarea", "18 degrees, north wind")
    B.click(".turn.answer form button")
    answered()
    assert text_of_answer().startswith("In Lisbon it is 18 degrees"), text_of_answer()
    assert B.value("document.querySelectorAll('.turn.answer').length") == 2 and not B.value("!!document.querySelector('form.call')")
    check_fits()
    shot(f"{size}-called")
    check_quiet()


def case_tools_on_a_desktop():
    tools_on("desktop")


def case_tools_on_a_phone():
    tools_on("phone")


def stop_on(size):
    fresh(size)
    say("[endless] Count the boats.")
    B.wait(f"{ANSWER}?.querySelector('.text')?.textContent.length > 8")
    B.click("#stop")
    assert "stopped" in answered()
    written = text_of_answer()
    wait_server_idle()
    assert 8 < len(written) < 100 and text_of_answer() == written, written
    shot(f"{size}-stopped")
    say("[unread] And this?")  # stopped before the first word: the message comes back
    B.wait("!!document.querySelector('.phase progress')")
    B.click("#stop")
    assert "stopped" in answered()
    wait_server_idle()
    assert B.value("document.getElementById('input').value") == "[unread] And this?"
    B.value("document.getElementById('input').value = '', 0")
    say("[tide] Go on.")
    answered()
    assert text_of_answer().startswith("The tide is high")
    check_quiet()


def case_stop_on_a_desktop():
    stop_on("desktop")


def case_stop_on_a_phone():
    stop_on("phone")


def case_the_dark():
    fresh("desktop", dark=True)
    say("[tide] When?")
    answered()
    shot("desktop-dark")
    ratio = B.value("""(() => {  // of the contrast between text and what is behind it
        const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4);
                             return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
        const under = e => { while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement; return getComputedStyle(e).backgroundColor; };
        return Math.min(...[...document.querySelectorAll('.text, .facts, pre, button, #model, summary')].filter(e => e.checkVisibility()).map(e => {
            const a = light(getComputedStyle(e).color), b = light(under(e));
            return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }));
    })()""")
    assert ratio >= 4.5, f"contrast {ratio:.1f}"
    check_quiet()
    return f"contrast {ratio:.1f} at least"


def case_keys_and_markup():
    """Enter sends, Shift+Enter does not; what a model writes is never markup."""
    fresh()
    B.write("#input", "[markup] one")
    B.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r", modifiers=8)
    B.call("Input.dispatchKeyEvent", type="keyUp", key="Enter", code="Enter", windowsVirtualKeyCode=13, modifiers=8)
    B.call("Input.insertText", text="two <i>lines</i>")
    assert B.value("document.getElementById('input').value") == "[markup] one\ntwo <i>lines</i>"
    B.press("Enter", 13, "\r")
    answered()
    assert text_of_answer().startswith("<img src=x onerror="), text_of_answer()
    assert B.value("document.querySelectorAll('#turns img, #turns b, #turns i, #turns script').length") == 0
    B.click("#new")
    assert B.value("document.querySelectorAll('.turn').length") == 0 and B.value("document.getElementById('empty').checkVisibility()")
    check_quiet()


def case_failures_are_said():
    global S
    fresh("phone")
    say("[fail] Please.")
    facts = answered()
    assert "script" in facts or "fail" in facts, facts
    B.complaints.clear()  # the browser itself notes a status of 500
    code = S.stop()
    assert code == 0, code
    B.value("document.getElementById('input').value = '', 0")
    say("Is somebody there?")
    assert "no connection" in answered()
    assert B.value("document.getElementById('input').value") == "Is somebody there?"
    check_fits()
    shot("phone-alone")
    B.complaints.clear()
    S = serve()


def main():
    global A, B, S
    parser = argparse.ArgumentParser()
    parser.add_argument("scripted_server")
    parser.add_argument("model")
    parser.add_argument("folder")
    parser.add_argument("--only", default="")
    A = parser.parse_args()
    program = chromium.find()
    if not program:
        print("skipped: no chromium here")
        return 77
    os.makedirs(A.folder, exist_ok=True)
    S, B = serve(), chromium.Browser(program)
    try:
        return 1 if run_cases(globals(), "case_", A.only) else 0
    finally:
        B.close()
        S.stop()


if __name__ == "__main__":
    sys.exit(main())
