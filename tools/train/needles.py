"""RULER's families in this model's words: texts with facts among filler, and questions about them.

Each answer repeats the sentences that it rests on, in their order in the text. README.md here lists the families.
"""
import world

FILLER = ("the a one this that old new small big warm cold wind rain tree bird stone field road hill sea "
          "moved stood fell ran near under over by with and then again").split()


def sentence(rng):
    return " ".join(rng.choice(FILLER) for _ in range(rng.randint(5, 11))).capitalize() + "."


SKILLS = ("single", "multikey", "multivalue", "multiquery", "tracking", "common")


def needle(w, sentences, kind, most=1):
    """A long user text of filler with facts in it, and up to `most` questions about them: [user, assistant, ...]."""
    text, asked = common(w, sentences) if kind == "common" else hidden(w, sentences, kind)
    messages = []
    for question, wanted in asked[:most]:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": "\n".join(wanted)}]
    messages[0]["content"] = text + "\n" + messages[0]["content"]
    return messages


def hidden(w, sentences, kind):
    """The text, and all questions on its facts with the sentences that answer each."""
    rng, names = w.rng, set()
    facts, asked = chains(w, names) if kind == "tracking" else properties(w, names, kind)
    lines = [sentence(rng) for _ in range(sentences)]
    for place, fact in zip(sorted((rng.randint(0, sentences) for _ in facts), reverse=True), reversed(facts)):
        lines.insert(place, fact)
    rng.shuffle(asked)
    return " ".join(lines), asked


def chains(w, names):
    """Chains of names: each is the one before, the first is a number. A chain's sentences keep their order, chains mix."""
    rng, facts, asked, all_facts = w.rng, [], [], []
    for _ in range(rng.choice((1, 2, 2, 3))):
        value, chain = w.number(3, 6), [world.fresh(w.name, names) for _ in range(rng.choice((2, 3, 3, 4)))]
        all_facts.append([f"{a} is {b}." for a, b in zip(chain, [value] + chain)])
        asked.append((f"Which names are {value}?", all_facts[-1]))
    waiting = [list(c) for c in all_facts]
    while any(waiting):
        facts.append(rng.choice([left for left in waiting if left]).pop(0))
    return facts, asked


def properties(w, names, kind):
    """Sentences that give a property of several names, and the questions of this kind about them."""
    rng, field = w.rng, w.word(world.FIELDS)
    count = {"single": 1, "multikey": rng.choice((2, 4, 8)), "multivalue": 3, "multiquery": rng.choice((3, 4, 6))}[kind]
    each = rng.choice((2, 3)) if kind == "multivalue" else 1
    facts = [(name, f"The {field} of {name} is {value}.")
             for name in [world.fresh(w.name, names) for _ in range(count)]
             for value in [w.number(3, 6) for _ in range(each)]]
    rng.shuffle(facts)
    order = list(dict.fromkeys(name for name, _ in facts))
    if kind == "multiquery":
        groups = [(a, b) for i, a in enumerate(order) for b in order[i + 1:]]
    else:
        groups = [(name,) for name in order]
    start = f"What are all the {field}s of " if kind == "multivalue" else f"What is the {field} of "
    return [fact for _, fact in facts], [
        (start + " and of ".join(group) + "?", [fact for name, fact in facts if name in group]) for group in groups]


def common(w, size):
    """Three names that come again and again among names that come once; they are asked for in alphabetical order."""
    rng, names = w.rng, set()
    often = sorted(world.fresh(w.name, names) for _ in range(3))
    times = max(3, size // 4)
    words = often * times + [world.fresh(w.name, names) for _ in range(times)]
    rng.shuffle(words)
    return " ".join(words), [("Which names are common?", often)]
