"""Writes the held-out episodes of `mixquant eval --task agent`: `python3 tools/train/episodes.py models/mixquant-agent`.

Each line of episodes.jsonl is one whole episode of four turns in the scene format of README.md here: its world, its tools
and the questions with the call and the statement that are right. Nothing is picked by what a model answers; the only
condition is that the dialogue fits the model's context.
"""
import argparse
import json
import os
import random

import template
import tokenizer as bpe
import world

TURNS = 4
LOW, HIGH = 500, 3600  # tokens of a whole episode


def scene(episode, name):
    """An Episode as JSON data: what the tools return follows from the tables."""
    tools = []
    for tool in episode.tools:
        function = tool["function"]
        table, column = episode.by_name[function["name"]]
        tools.append({"name": function["name"], "description": function["description"],
                      "parameters": function["parameters"], "table": table.noun, "filter": {column: column},
                      "columns": table.order, "limit": 1000,
                      **({"format": table.form} if table.form != "json" else {})})
    turns = []
    for turn in episode.turns:
        call, arguments = turn["call"] or (None, None)
        turns.append({"user": turn["question"], "call": call, "arguments": arguments,
                      "expect": turn["answer"].split("\n")[-1], "answer": turn["answer"]})
    tables = {table.noun: table.rows for table in episode.active}
    return {"id": name, "system": world.SYSTEM, "tools": tools, "turns": turns, "tables": tables}


def draw(seed, tok):
    """The first world of this seed whose episode has four turns and a length in range."""
    for attempt in range(1000):
        rng = random.Random(f"episode-{seed}-{attempt}")
        budget = int(400 * 8 ** rng.random())
        episode = world.Episode(world.World(rng, "held"), budget, max_turns=TURNS)
        if len(episode.turns) < TURNS:
            continue
        tokens = len(tok.encode(template.render(episode.messages(), episode.tools)))
        if LOW <= tokens <= HIGH:
            return episode, tokens
    raise SystemExit(f"seed {seed}: expected an episode of {LOW} to {HIGH} tokens, got none")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--first", type=int, default=0, help="the first seed; above 600 for episodes that nobody has seen")
    parser.add_argument("-o", "--out", help="the file; the folder's episodes.jsonl when absent")
    args = parser.parse_args()
    tok, lengths = bpe.Tokenizer(args.folder), []
    with open(args.out or os.path.join(args.folder, "episodes.jsonl"), "w", encoding="utf-8") as file:
        for seed in range(args.first, args.first + args.count):
            episode, tokens = draw(seed, tok)
            lengths.append(tokens)
            file.write(json.dumps(scene(episode, f"episode-{seed:04}"), ensure_ascii=False, separators=(",", ":")) + "\n")
    lengths.sort()
    print(f"{args.count} episodes of {lengths[0]} to {lengths[-1]} tokens, median {lengths[len(lengths) // 2]}")


if __name__ == "__main__":
    main()
