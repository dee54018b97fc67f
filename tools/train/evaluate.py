"""Scores an exported model folder on held-out worlds: `python3 tools/train/evaluate.py models/mixquant-agent`.

Greedy decoding, BF16 weights computed in float32, the model's own calls really executed. Rates are printed as JSON.
"""
import argparse
import json
import os
import random
import re

import torch

import export
import model as qwen3
import needles
import template
import tokenizer as bpe
import world

CALL = re.compile(r"<tool_call>\n(\{.*\})\n</tool_call>", re.S)


class Agent:
    def __init__(self, folder):
        with open(os.path.join(folder, "config.json"), encoding="utf-8") as file:
            self.net = qwen3.Model(json.load(file))
        self.net.load_state_dict(export.read_safetensors(os.path.join(folder, "model.safetensors")))
        self.tok = bpe.Tokenizer(folder)
        self.end = self.tok.special["<|im_end|>"]
        self.reset()

    def reset(self):
        self.cache, self.ids = qwen3.Cache(), []

    @torch.no_grad()
    def say(self, messages, tools=None, most=160):
        """The greedy continuation of a dialogue as text; the cache is reused while the prefix is the same."""
        ids = self.tok.encode(template.render(messages, tools, True))
        if self.ids != ids[:len(self.ids)]:
            self.reset()
        new, out = ids[len(self.ids):], []
        while True:
            hidden = self.net(torch.tensor([new]), cache=self.cache)
            self.ids += new
            token = int(self.net.logits(hidden[0, -1]).argmax())
            if token == self.end or len(out) == most:
                return self.tok.decode(out)
            out.append(token)
            new = [token]


def parse_call(text):
    match = CALL.fullmatch(text.strip())
    try:
        call = json.loads(match.group(1)) if match else None
        return (call["name"], call["arguments"]) if call else None
    except (ValueError, KeyError, TypeError):
        return None


def play(agent, episode, verbose=False):
    """Plays an episode with the model's own calls. Returns per turn (call right, answer right, prompt tokens)."""
    agent.reset()
    messages, score = [{"role": "system", "content": world.SYSTEM}], []
    for turn in episode.turns:
        messages.append({"role": "user", "content": turn["question"]})
        text = agent.say(messages, episode.tools)
        call, wanted = parse_call(text), turn["call"]
        call_right = call == wanted if wanted else "<tool_call>" not in text
        if call:
            name, arguments = call
            result = episode.execute(name, arguments)
            messages.append({"role": "assistant", "content": "",
                             "tool_calls": [{"function": {"name": name, "arguments": arguments}}]})
            messages.append({"role": "tool", "content": "no such tool" if result is None else result})
            text = agent.say(messages, episode.tools)
        messages.append({"role": "assistant", "content": text})
        right = text.split("\n")[-1] == turn["answer"].split("\n")[-1]
        score.append((call_right, call_right and right, len(agent.ids)))
        if verbose:
            print(f"{turn['kind']:8}{call_right!s:6}{right!s:6}{len(agent.ids)}\n   Q {turn['question']}\n   C {call}"
                  f"\n   A {text!r}\n   W {turn['answer']!r}")
    return score


def rate(values):
    values = list(values)
    return {"rate": round(sum(values) / len(values), 3), "n": len(values)} if values else None


def lookups(agent, count, budget, verbose):
    """Single-turn lookups: a call, a result of up to `budget` tokens, an answer."""
    calls, answers, lengths, groups = [], [], [], {}
    for seed in range(count):
        e = world.episode(f"single-{budget}-{seed}", "held", budget, max_turns=1, kinds=[("group", "group", "key")[seed % 3]])
        ((call, right, length),) = play(agent, e, verbose)
        calls.append(call)
        answers.append(right)
        lengths.append(length)
        kind, tools = e.turns[0]["kind"], len(e.tools)
        groups.setdefault(f"{kind}, {tools if tools < 3 else '3+'} tools", []).append(call)
        rows = e.turns[0]["result"].count("\n") + 1
        if call:
            groups.setdefault("answer after a right call, " + ("1 row" if rows == 1 else "2-8 rows" if rows < 9
                                                                else "9+ rows"), []).append(right)
    split = {k: rate(v) for k, v in sorted(groups.items())}
    return {"call": rate(calls), "answer": rate(answers), "split": split, "mean_tokens": sum(lengths) // count}


def conversations(agent, count, budget, verbose):
    """Two turns: a lookup, then a follow-up on its result or a second call."""
    whole, first, second = [], [], {}
    for seed in range(count):
        kinds = ["group", ("its", "and", "that", "group")[seed % 4]]
        e = fixed(f"double-{budget}-{seed}", budget, kinds)
        score = play(agent, e, verbose)
        whole.append(all(s[1] for s in score))
        first.append(score[0][1])
        second.setdefault(e.turns[1]["kind"], []).append(score[1][1])
    return {"whole": rate(whole), "first": rate(first), "second": {k: rate(v) for k, v in second.items()}}


def fixed(seed, budget, kinds):
    """An episode of exactly these kinds of turn; other seeds are tried where a world cannot offer them."""
    for attempt in range(200):
        rng = random.Random(f"held-{seed}-{attempt}")
        e = world.Episode(world.World(rng, "held"), budget, max_turns=len(kinds), kinds=kinds + [None])
        if [t["kind"] for t in e.turns] == kinds:
            return e
    return e


def refusals(agent, count, budget, verbose):
    out = {}
    for kind in ("missing", "empty", "notool"):
        scores = [play(agent, fixed(f"{kind}-{seed}", budget, [kind]), verbose)[-1][1] for seed in range(count)]
        out[kind] = rate(scores)
    return out


def size_of(agent, kind, length):
    """The argument of needles.needle that makes about `length` tokens of this kind."""
    sample = needles.needle(world.World(random.Random(f"size-{kind}"), "held"), 200, kind)
    return max(2, length * 200 // len(agent.tok.encode(sample[0]["content"])))


def family(agent, count, kind, length, verbose):
    """One of RULER's families in about `length` tokens; right when the whole answer is."""
    right, size = [], size_of(agent, kind, length)
    for seed in range(count):
        rng = random.Random(f"{kind}-{length}-{seed}")
        w = world.World(rng, "held")
        messages = needles.needle(w, size, kind)
        agent.reset()
        text = agent.say(messages[:1])
        right.append(text == messages[1]["content"])
        if verbose:
            print(f"{len(agent.ids)} {text!r} {messages[1]['content']!r}")
    return dict(rate(right), tokens=len(agent.ids))


def demo(agent, scene, verbose=True):
    """Plays a scenario the way the `mixquant agent` command does; the number of turns with the right call and answer."""
    agent.reset()
    tools = [{"type": "function", "function": {k: t[k] for k in ("name", "description", "parameters")}}
             for t in scene["tools"]]
    by_name = {t["name"]: t for t in scene["tools"]}
    messages, good = [{"role": "system", "content": scene["system"]}], 0
    for turn in scene["turns"]:
        messages.append({"role": "user", "content": turn["user"]})
        text = agent.say(messages, tools)
        call = parse_call(text)
        if call and call[0] in by_name:
            t = by_name[call[0]]
            ((argument, column),) = t["filter"].items()
            result = world.select(scene["tables"][t["table"]], column, str(call[1].get(argument)),
                                  t["columns"], t["limit"], t.get("format", "json"))
            messages.append({"role": "assistant", "content": "",
                             "tool_calls": [{"function": {"name": call[0], "arguments": call[1]}}]})
            messages.append({"role": "tool", "content": result})
            text = agent.say(messages, tools)
        messages.append({"role": "assistant", "content": text})
        right = turn["expect"] in text.split("\n")[-1] and (call[0] if call else None) == turn["call"]
        good += right
        if verbose:
            print(f"{len(agent.ids)} tokens | {turn['user']} | {call} | {text!r} | {'right' if right else 'WRONG'}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--only", default="lookup,long,talk,refuse,needle,skills", help="comma-separated")
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    agent, n, v = Agent(args.folder), args.count, args.verbose
    if args.demo:
        with open(os.path.join(args.folder, "demo.json"), encoding="utf-8") as file:
            scene = json.load(file)
        raise SystemExit(0 if demo(agent, scene) == len(scene["turns"]) else 1)
    tasks = {
        "lookup": lambda: lookups(agent, n, 600, v),
        "long": lambda: lookups(agent, n, 1800, v),
        "talk": lambda: conversations(agent, n, 900, v),
        "refuse": lambda: refusals(agent, max(1, n // 3), 600, v),
        "needle": lambda: {t: family(agent, max(1, n // 4), "single", t, v) for t in (512, 1024, 2048, 3900)},
        "skills": lambda: {k: family(agent, max(1, n // 4), k, 1024, v) for k in needles.SKILLS},
    }
    for name in args.only.split(","):
        print(json.dumps({name: tasks[name]()}), flush=True)


if __name__ == "__main__":
    main()
