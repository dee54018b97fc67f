"""Checks that held-out worlds share nothing with training that an answer could state: `python3 tools/train/test_world.py`.

Plain Python; exit 1 and a line for each fault.
"""
import random
import sys

import world

EPISODES = 400


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


def main():
    faults = []
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
