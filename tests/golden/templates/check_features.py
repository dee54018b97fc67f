"""Each feature of the language in a small template: byte-equal to jinja2, or an error in both.

usage: check_features.py PROGRAM [FILE ...]   FILE: templates separated by lines of ====; features.txt by default
"""
import pathlib
import sys

import oracle

VARIABLES = {
    "messages": [
        {"role": "system", "content": "sys"},
        {"role": "user", "content": "Grüße, 世界 😀", "n": 1},
        {"role": "assistant", "content": None, "n": 2.5, "tags": ["b", "A", "c"]},
        {"role": "user", "content": "x\n  y\n\nz ", "n": -3},
    ],
    "d": {"b": 1, "a": "two", "items": 3, "C": None, "nested": {"x": [1, {"y": "z"}], "_u": 1}},
    "empty": {"list": [], "dict": {}, "text": ""},
    "t": True, "f": False, "none_value": None, "i": 7, "neg": -7, "r": 2.5, "s": "Hello World", "u": "naïve ÉCOLE straße ΑΣ ŉ",
    "numbers": [3, 1, 2, 3], "words": ["pear", "Apple", "fig", "apple"], "mixed": [1, "a", None, True, 2.0],
    "rows": [{"k": "x", "v": 2}, {"k": "y", "v": 1}, {"k": "X", "v": 3}],
    "html": "<a href='x'>\"&\"</a>", "multi": "one\ntwo\r\nthree\n\nfour", "spaces": "  \t padded \n ",
    "tree": [{"name": "a", "kids": [{"name": "b", "kids": []}, {"name": "c", "kids": [{"name": "d", "kids": []}]}]}],
    "big": {"unsigned": 18446744073709551615, "long": -10**40},
    "json": {"text": "é\"\\\n\u0007\u2028\u007f", "float": 1e100, "small": 1e-7, "int": 12345678901234567, "list": [], "dict": {}, "deep": [[{"a": [1, 2]}]]},
}


def main():
    subject, report = oracle.Subject(sys.argv[1]), oracle.Report()
    files = sys.argv[2:] or [pathlib.Path(__file__).with_name("features.txt")]
    for file in files:
        text = pathlib.Path(file).read_text(encoding="utf-8")
        for number, template in enumerate(text.split("\n====\n")):
            for ending in ("", "\n", "\r\n"):
                variant = template.replace("\n", "\r\n") + ending if ending == "\r\n" else template + ending
                got = subject.ask({"template": variant, "variables": VARIABLES})
                report.compare(f"{number}: {template[:300]!r}", oracle.render(variant, VARIABLES), got)
    return report.finish("features", least=100)


if __name__ == "__main__":
    sys.exit(main())
