"""Walks through a table that add up: `mixquant eval --task ledger` in training worlds (src/eval/ledger.h has the task).

Each line of an answer uses the one before: the name that it ends on is the row to read next, the total is added to.
"""
import world

STEPS = 40  # at most; totals begin below START and stay below 1,000, one token
START = 500
ROW, LINE, FRAME, SUM = 17, 27, 90, 11  # tokens that a row, a line of the answer, everything else and a sum take, at most


def row(names, numbers, i):
    return f"{names[i]}: {numbers[i]}, then {names[(i + 1) % len(names)]}."


def written(names, numbers, places, steps, total):
    """The user's text and the answer: rows of a ring, in the text in the order of `places`; the walk begins at row 0."""
    lines, sum_ = [], total
    for i in range(steps):
        sum_ += numbers[i]
        lines.append(f"{i + 1}. {row(names, numbers, i)} Total {sum_}.")
    text = ["Each row has a name, a number and the next name.", *(row(names, numbers, i) for i in places),
            f"Start with a total of {total} and follow {steps} rows, one a line, with the total so far:", lines[0]]
    return "\n".join(text), "\n".join(lines)


def ledger(w, room):
    """A dialogue of one walk that fits `room` tokens: [user, assistant]."""
    rng = w.rng
    most = max(2, min(STEPS, (room - FRAME) // (ROW + LINE)))
    steps = rng.randint(max(2, most // 3), most)
    rows = max(steps, (room - FRAME - LINE * steps) // ROW)
    if rng.random() < 0.3:
        rows = rng.randint(steps, rows)
    used = set()
    names = [world.fresh(w.name, used) for _ in range(rows)]
    numbers = [rng.randint(1, 9) for _ in names]
    text, answer = written(names, numbers, rng.sample(range(rows), rows), steps, rng.randrange(START))
    return [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]


def sums(rng, most):
    """The adding alone, in some `most` tokens: totals as in an answer, after the numbers that make them."""
    chains = []
    for _ in range(most // SUM):
        if not chains or total > 850 or rng.random() < 0.04:
            total = rng.randrange(850)
            chains.append(f"Total {total}.")
        number = rng.randint(1, 9)
        total += number
        chains[-1] += f" {number}. Total {total}."
    return "\n".join(chains)
