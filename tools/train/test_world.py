"""Checks that held-out worlds share nothing with training that an answer could state: `python3 tools/train/test_world.py`.

Plain Python; exit 1 and a line for each fault.
"""
import random
import sys

import ledger
import world

EPISODES = 400
# Of the rows Ann, Bob and Cid with 4, 7 and 2: what tests/unit/test_eval_ledger.c has, too.
LEDGER = """Each row has a name, a number and the next name.
Cid: 2, then Ann.
Ann: 4, then Bob.
Bob: 7, then Cid.
Start with a total of 93 and follow 3 rows, one a line, with the total so far:
1. Ann: 4, then Bob. Total 97."""


def words_of(split):
    """Nouns and column words, then stated values, of the episodes of one split."""
    words, values = set(), set()
    for seed in range(EPISODES):
        episode = world.Episode(world.World(random.Random(f"{split}-{seed}"), split), 900, 4, min_turns=4)
        for table in episode.tables:
            words |= {table.noun, *table.order}
        for turn in episode.turns:
            if turn["value"] is not None:
                values.add(str(turn["value"]))
    return words, values


def ledger_faults():
    """The wording that mixquant asks in, and walks that a reader of the text alone makes."""
    faults = []
    text, answer = ledger.written(["Ann", "Bob", "Cid"], [4, 7, 2], [2, 0, 1], 3, 93)
    if text != LEDGER or answer.split("\n")[-1] != "3. Cid: 2, then Ann. Total 106.":
        faults.append(f"ledger: expected the wording of the task, got {text} {answer}")
    for seed in range(100):
        user, assistant = ledger.ledger(world.World(random.Random(seed)), 250 + 20 * seed)
        rows = dict(line.split(": ", 1) for line in user["content"].split("\n")[1:-2])
        start = user["content"].split("\n")[-2].split()
        name, total, lines = user["content"].split("\n")[-1].split()[1][:-1], int(start[5]), []
        for count in range(int(start[8])):
            number, following = rows[name].rstrip(".").split(", then ")
            total += int(number)
            lines.append(f"{count + 1}. {name}: {rows[name]} Total {total}.")
            name = following
        if "\n".join(lines) != assistant["content"]:
            faults.append(f"ledger {seed}: expected {lines[-1]}, got {assistant['content'][-60:]}")
    return faults


def main():
    faults = ledger_faults()
    train, held = words_of("train"), words_of("held")
    for what, a, b in (("words", train[0], held[0]), ("stated values", train[1], held[1])):
        if len(b) < 100:
            faults.append(f"{what}: expected a hundred or more, got {len(b)}")
        if a & b:
            faults.append(f"{what}: expected none on both sides, got {sorted(a & b)[:8]}")
    listed = {w for lists in (world.NOUNS, world.GROUPS, world.FIELDS, world.KEYS, world.STATES) for w in lists["train"]}
    if listed & (held[0] | held[1]):
        faults.append(f"training's words: expected none in held-out worlds, got {sorted(listed & (held[0] | held[1]))[:8]}")
    loose = [v for v in held[1] if not world.is_held(v) and v not in world.STATES["held"]]
    if loose:
        faults.append(f"stated values: expected held-out ones, got {len(loose)} of {len(held[1])} others, as {loose[:5]}")
    print("\n".join(faults) or f"{len(held[1])} stated values, none of training's")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
