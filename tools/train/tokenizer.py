"""Byte-level BPE: training on generated worlds, the tokenizer.json writer, and encode/decode for training.

Copying is the skill of this model, so a value must be the same tokens wherever it stands, and few of them. Digits come in
threes from the left (the pre-tokenizer's \\p{N}{1,3}; each such group is one token), and a leading space or underscore
never merges with the letters after it, except in the fixed words of the dialogue frame (GLUE), which are never values.
"""
import collections
import json
import os
import re

import needles
import template
import world

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tools>", "</tools>",
           "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
CONTROL = 3  # the first of SPECIAL are control tokens, which detokenising drops
VOCAB = 3072
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")
# The same expression in the standard library's dialect; they agree on ASCII, all that training text has.
_SPLIT = re.compile(PATTERN.replace(r"[^\r\n\p{L}\p{N}]", r"(?:[^\r\n\w]|_)").replace(r"\p{L}", r"[^\W\d_]")
                    .replace(r"\p{N}", r"\d").replace(r"[^\s[^\W\d_]\d]", r"(?:[^\s\w]|_)"))
_ADDED = re.compile("(" + "|".join(re.escape(text) for text in SPECIAL) + ")")
# Not the short words: a value may begin with one, and would then be other tokens after a space than after a quote.
GLUE = [" " + w for w in """tools tool there answer type function name names description parameters object properties
    string required arguments this small warm cold rain tree bird stone field road hill moved stood fell near under over
    with again common""".split()]
GLUE += ["_by"]


def byte_alphabet():
    """GPT-2's printable stand-in for each byte: printable Latin-1 is itself, the rest goes to 256 and up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table, extra = {b: chr(b) for b in plain}, 256
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(extra)
            extra += 1
    return table


BYTES = byte_alphabet()
UNBYTES = {c: b for b, c in BYTES.items()}


def to_alphabet(text):
    return "".join(BYTES[b] for b in text.encode("utf-8"))


def train_merges(texts, count):
    """Merges by pair frequency; word pieces are learned without what stands before them."""
    words = collections.Counter()
    for text in texts:
        for part in _ADDED.split(text):
            if part in SPECIAL:
                continue
            for word in _SPLIT.findall(part):
                if word.isdigit():
                    continue
                if len(word) > 1 and word[-1].isalpha() and not word[0].isalpha():
                    word = word[1:]
                words[to_alphabet(word)] += 1
    glue = [to_alphabet(w) for w in GLUE]
    parts = [list(w) for w in words]
    counts = list(words.values())
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, word in enumerate(parts):
        for pair in zip(word, word[1:]):
            pairs[pair] += counts[i]
            where[pair].add(i)
    merges = []
    while len(merges) < count - len(glue) - 1100:
        pair = max(pairs, key=lambda p: (pairs[p], p))
        if pairs[pair] < 2:
            break
        merges.append(pair)
        for i in sorted(where.pop(pair)):
            word = parts[i]
            for p in zip(word, word[1:]):
                pairs[p] -= counts[i]
            parts[i] = word = merge(word, pair)
            for p in zip(word, word[1:]):
                pairs[p] += counts[i]
                where[p].add(i)
        del pairs[pair]
    known = {a + b for a, b in merges}
    merges += [(g[0], g[1:]) for g in glue if g[1:] in known or len(g) == 2]
    digits = [(a, b) for a in "0123456789" for b in "0123456789"]
    threes = [pair for a, b in digits for c in "0123456789" for pair in ((a + b, c), (a, b + c))]
    return digits + threes + merges


def merge(word, pair):
    out, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and (word[i], word[i + 1]) == pair:
            out.append(word[i] + word[i + 1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return out


def corpus(episodes):
    for seed in range(episodes):
        e = world.episode(f"bpe-{seed}", budget=400)
        yield template.render(e.messages(), e.tools)
        w = e.world
        if seed % 4 == 0:
            yield template.render(needles.needle(w, 8, needles.SKILLS[seed // 4 % len(needles.SKILLS)]))
        if seed % 2 == 0:  # so that the words of all lists become single tokens
            yield " ".join(w.rng.choice(lists["train"]) for lists in (world.NOUNS, world.GROUPS, world.FIELDS)
                           for _ in range(6))


def write(folder):
    merges = train_merges(corpus(3000), VOCAB - 256 - len(SPECIAL))
    vocab = {c: i for i, c in enumerate(BYTES[b] for b in range(256))}
    for a, b in merges:
        vocab.setdefault(a + b, len(vocab))
    first = len(vocab)
    assert first + len(SPECIAL) <= VOCAB, first
    added = [dict(id=first + i, content=text, single_word=False, lstrip=False, rstrip=False, normalized=False,
                  special=i < CONTROL) for i, text in enumerate(SPECIAL)]
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=False, use_regex=False)
    document = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": PATTERN}, "behavior": "Isolated", "invert": False}, level]},
        "post_processor": level, "decoder": level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    }
    with open(os.path.join(folder, "tokenizer.json"), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False, indent=1)
    decoder = {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}
    config = {"add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": decoder,
              "bos_token": None, "clean_up_tokenization_spaces": False, "eos_token": "<|im_end|>",
              "errors": "replace", "model_max_length": 4096, "pad_token": "<|endoftext|>",
              "split_special_tokens": False, "tokenizer_class": "Qwen2Tokenizer", "unk_token": None}
    with open(os.path.join(folder, "tokenizer_config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=2)
        file.write("\n")


class Tokenizer:
    def __init__(self, folder):
        with open(os.path.join(folder, "tokenizer.json"), encoding="utf-8") as file:
            document = json.load(file)
        self.vocab = document["model"]["vocab"]
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(document["model"]["merges"])}
        self.special = {a["content"]: a["id"] for a in document["added_tokens"]}
        self.text = {i: t for t, i in self.vocab.items()}
        self.special_text = {i: t for t, i in self.special.items()}
        self.cache = {}

    def _word(self, word):
        parts = list(to_alphabet(word))
        while len(parts) > 1:
            best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
            if best not in self.rank:
                break
            parts = merge(parts, best)
        return [self.vocab[p] for p in parts]

    def encode(self, text):
        ids, cache = [], self.cache
        for part in _ADDED.split(text):
            if part in self.special:
                ids.append(self.special[part])
                continue
            for word in _SPLIT.findall(part):
                got = cache.get(word)
                if got is None:
                    got = self._word(word)
                    if len(cache) < 100000:
                        cache[word] = got
                ids.extend(got)
        return ids

    def decode(self, ids):
        out = bytearray()
        for i in ids:
            out += self.special_text[i].encode() if i in self.special_text else \
                bytes(UNBYTES[c] for c in self.text.get(i, ""))
        return out.decode("utf-8", "replace")


if __name__ == "__main__":
    import sys
    write(sys.argv[1])
