"""Seeded worlds of small tables with lookup tools, and the dialogues that agents have about them.

A world is a few tables, each with a key column, one or two group columns and some value columns. A tool
lists the rows of one table where one column equals its argument. The dialogues are exactly regular: every
answer quotes the row it rests on, then states the value. Held-out worlds never share a noun, a column word or a
stated value with training: names, numbers, codes and dates are split by a checksum, the words by separate lists.
"""
import json
import random
import zlib

ONSETS = "b c d f g h j k l m n p r s t v w z br dr gr kr tr st sh th ch pl fl".split()
VOWELS = "a e i o u".split()
CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "t", "x", "nd"]

NOUNS = {
    "train": """order ticket flight room book car train player recipe song machine server project course
        student teacher doctor house ship letter film router printer phone loan account contract task event
        garden plant river mountain bridge tower engine battery camera bike bus hotel farm mine shop museum
        statue coin stamp medal knife table chair lamp window door carpet jacket boot""".split(),
    "held": "parcel invoice sensor patient shipment vehicle meeting license warranty auction".split(),
}
GROUPS = {
    "train": """region city customer owner team store color zone group branch level class vendor brand
        street market school office harbor sector""".split(),
    "held": "warehouse country depot district carrier".split(),
}
FIELDS = {
    "train": """price status weight date size total score rank count speed length height width rate code
        type grade state phase stock age year mode limit tax power value""".split(),
    "held": "cost stage fee due volume delay amount driver".split(),
}
KEYS = {"train": "id name code key ref".split(), "held": ["number", "label"]}
# Pieces of words that are neither in a list nor of these syllables: what copies them has to copy anything.
PIECES = """ab ac ad af al am an ap ar as at au be bl bo br ca ce ch ci cl co com con cou cr cu de di do dr ea ed el em
    en er es et ex fa fe fi fo fr ful ga ge gi gra ha he hi ho hu ic ig il im in ing ion ir is ist it ive ize ju ke la le
    li lo lu ly ma me ment mi mo mu na ne ness ni no nu ob oc od of ol om on oo op or ou ow pa pe ph pi pl po pr pu qu ra
    re ri ro ru sa sc se sh si sk so sp st su ta te th ti tion to tr tu ty ul un up ur us ut va ve vi vo wa we wh wi wo
    ya ye yo""".split()
STATES = {
    "train": """open closed paid late new old ready sold lost sent done red blue green black white fast slow
        high low active idle""".split(),
    "held": "early full empty blocked pending spare loud quiet".split(),
}
# Words of either side's lists: a made-up word is none of them (the syllables can spell "brand", and so did held-out worlds).
LISTED = {word for lists in (NOUNS, GROUPS, FIELDS, KEYS, STATES) for words in lists.values() for word in words}
FORMS = ("json", "json", "log", "table")  # how a tool prints its rows
SYSTEM = "Use the tools to answer."
NO_ROWS = "no rows"


def is_held(text):
    """Which side of the split a name or id is on; about one in eight is held out."""
    return zlib.crc32(text.lower().encode()) % 8 == 0


class World:
    """Random source of one split ("train" or "held"); every choice comes from the one seeded generator."""

    def __init__(self, rng, split="train"):
        self.rng = rng
        self.split = split

    def _split_ok(self, text):
        return is_held(text) == (self.split == "held")

    def syllables(self, count):
        rng = self.rng
        return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(count))

    def name(self):
        while True:
            word = self.syllables(self.rng.choice((1, 2, 2, 2, 3))).capitalize()
            if len(word) > 2 and self._split_ok(word):
                return word

    def number(self, low=2, high=5):
        while True:
            digits = self.rng.randint(low, high)
            text = str(self.rng.randint(10 ** (digits - 1), 10**digits - 1))
            if self._split_ok(text):
                return text

    def code(self):
        rng = self.rng
        while True:
            text = "".join(rng.choice("ABCDEFGHKLMNPRSTUVWXYZ") for _ in range(rng.randint(1, 2)))
            text += rng.choice(("", "-")) + str(rng.randint(10, 9999))
            if self._split_ok(text):
                return text

    def word(self, lists, odd=0.3):
        """A noun or column word: from the split's list or, for variety, made up."""
        if self.split == "train":
            while self.rng.random() < 0.4:
                word = "".join(self.rng.choice(PIECES) for _ in range(self.rng.randint(2, 4)))
                if self._split_ok(word) and word not in LISTED:
                    return word
        if self.rng.random() < odd:
            while True:
                word = self.syllables(self.rng.choice((1, 2, 2)))
                if len(word) > 2 and self._split_ok(word) and word not in LISTED:
                    return word
        return self.rng.choice(lists[self.split])

    def _drawn(self, make):
        """The first text of make() that is on this side of the split."""
        while True:
            text = make()
            if self._split_ok(text):
                return text

    def value(self, kind):
        rng = self.rng
        if kind == "int":
            return int(self.number(1, 5))
        if kind == "decimal":
            return self._drawn(lambda: f"{rng.randint(1, 999)}.{rng.randint(0, 99):02d}")
        if kind == "name":
            return self.name()
        if kind == "state":
            return rng.choice(STATES[self.split])
        if kind == "code":
            return self.code()
        return self._drawn(lambda: f"20{rng.randint(10, 29)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}")

    def key(self, kind):
        if kind == "number":
            return self.number(3, 5)
        return self.name() if kind == "name" else self.code()


class Table:
    def __init__(self, world, used, prefix):
        rng = world.rng
        self.world = world
        self.noun = fresh(lambda: world.word(NOUNS), used)
        columns = set()
        self.key = fresh(lambda: world.word(KEYS, 0.5), columns)
        self.key_kind = rng.choice(("number", "number", "name", "code"))
        self.groups = [fresh(lambda: world.word(GROUPS), columns) for _ in range(rng.choice((1, 1, 2)))]
        self.fields = [fresh(lambda: world.word(FIELDS), columns) for _ in range(rng.choice((1, 2, 2, 3)))]
        kinds = ("int", "int", "decimal", "name", "state", "code", "date")
        self.kinds = {f: rng.choice(kinds) for f in self.fields}
        self.order = self.groups + self.fields
        rng.shuffle(self.order)
        # grouping columns, which repeat from row to row, come last
        self.order = [self.key] + [c for c in self.order if c in self.fields] + [c for c in self.order if c in self.groups]
        self.rows = []
        self.prefix = prefix
        self.form = rng.choice(FORMS)

    def fill(self, count, groups):
        """Add count rows whose group columns take one of `groups` values each."""
        world = self.world
        keys = {row[self.key] for row in self.rows}
        pools = {}
        for column in self.groups:
            pool = set()
            while len(pool) < groups:
                pool.add(world.name())
            pools[column] = sorted(pool)
        for _ in range(count):
            key = fresh(lambda: world.key(self.key_kind), keys)
            row = {self.key: key}
            for column in self.order[1:]:
                row[column] = world.rng.choice(pools[column]) if column in pools else world.value(self.kinds[column])
            self.rows.append(row)

    def select(self, column, value):
        return select(self.rows, column, value, form=self.form)

    def quote(self, row):
        """The row as an answer quotes it: as it was printed, but a line of a table with its columns' names."""
        return row_text(row, "log" if self.form == "table" else self.form)

    def tool_name(self, column):
        return f"{self.prefix}{self.noun}" + ("" if column == self.key else f"_by_{column}")

    def tool(self, column):
        return {
            "type": "function",
            "function": {
                "name": self.tool_name(column),
                "description": f"{'One' if column == self.key else 'List'} {self.noun} by {column}",
                "parameters": {
                    "type": "object",
                    "properties": {column: {"type": "string"}},
                    "required": [column],
                },
            },
        }


def fresh(make, used):
    """A value of make() that `used` does not contain yet; it is added."""
    while True:
        value = make()
        if value not in used:
            used.add(value)
            return value


def row_text(row, form="json"):
    """One row as a JSON record, as a line of a log or as a line of a table."""
    if form == "log":
        return " ".join(f"{name}={value}" for name, value in row.items())
    if form == "table":
        return "|".join(str(value) for value in row.values())
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def print_rows(rows, form):
    """What a tool prints: one row a line; a table starts with its columns' names."""
    lines = [row_text(row, form) for row in rows]
    return "\n".join(["|".join(rows[0])] * (form == "table") + lines)


def select(rows, column, value, columns=None, limit=None, form="json"):
    """What a tool returns: the matching rows in table order."""
    found = [row for row in rows if str(row.get(column)) == value][:limit]
    if columns:
        found = [{c: row[c] for c in columns if c in row} for row in found]
    return print_rows(found, form) if found else NO_ROWS


def answer_text(table, row, field):
    return f"For {table.noun} {row[table.key]}:\n{table.quote(row)}\nThe {field} is {row[field]}."


class Episode:
    """One dialogue. `turns` lists, per user question, the call (or None), its result and the answer."""

    def __init__(self, world, budget, max_turns=3, kinds=None, min_turns=1):
        self.world, self.rng = world, world.rng
        rng = self.rng
        used = set()
        tables = rng.choice((1, 1, 2, 2, 3)) if budget > 500 else rng.choice((1, 1, 2))
        prefix = rng.choice(("", "get_", "find_", "find_", "list_"))
        self.tables = [Table(world, used, prefix) for _ in range(tables)]
        self.used = used
        turns = rng.randint(min_turns, max_turns)
        self.tools, self.by_name = [], {}
        pairs = [(t, c) for t in self.tables for c in t.groups + [t.key]]
        rng.shuffle(pairs)
        most = 2 if budget < 400 else 3 if budget < 700 else 5
        for table, column in pairs[:most]:
            self.tools.append(table.tool(column))
            self.by_name[table.tool_name(column)] = (table, column)
        self.active = sorted({id(t): t for t, _ in self.by_name.values()}.values(), key=lambda t: t.noun)
        rng.shuffle(self.active)
        self._fill(budget - 60 - 62 * len(self.tools), turns)
        self.turns = []
        self.last = None  # table, column, value, row, field of the latest found row
        for index in range(turns):
            kind = kinds[index] if kinds else None
            self._turn(kind)

    def _fill(self, room, turns):
        rng = self.rng
        room -= turns * 90
        for table in self.active:
            cost = 6 + 7 * len(table.order)
            most = max(2, room // (cost * min(turns, 2)))
            rows = max(1, int(2 ** rng.uniform(0, max(0.0, (most).bit_length() - 0.5))))
            rows = min(rows, most) if rng.random() < 0.6 else most
            groups = rng.choice((1, 2, 2, 3))
            table.fill(max(rows * groups, groups + 1), groups)

    def _turn(self, kind):
        rng = self.rng
        if kind is None:
            if self.last is None:
                kind = rng.choices(("group", "key", "missing", "empty", "notool"), (12, 4, 1.5, 0.7, 0.7))[0]
            else:
                kind = rng.choices(
                    ("group", "key", "its", "and", "that", "missing", "empty"), (4, 2, 5, 5, 4, 1.5, 0.5))[0]
        getattr(self, "_" + kind)()

    def _ask(self, kind, question, call, result, answer, value):
        self.turns.append(dict(kind=kind, question=question, call=call, result=result, answer=answer, value=value))

    def _question(self, field, noun, key, tail=""):
        start = self.rng.choice(("What is the", "Give me the", "Tell me the"))
        return f"{start} {field} of {noun} {key}{tail}" + ("?" if start[0] == "W" else ".")

    def _field(self, table, but):
        choices = [c for c in table.order if c != table.key and c not in but]
        return self.rng.choice(choices or table.fields)

    def _pick(self, keyed):
        """A tool that filters by the key column (keyed) or by a group column, if there is one."""
        options = [(t, c) for t, c in self.by_name.values() if (c == t.key) == keyed]
        return self.rng.choice(options) if options else None

    def _lookup(self, kind, table, column, row, tail):
        field = self._field(table, {column})
        value = row[column]
        noun, key = table.noun, row[table.key]
        self._ask(kind, self._question(field, noun, key, tail), (table.tool_name(column), {column: value}),
                  table.select(column, value), answer_text(table, row, field), row[field])
        self.last = (table, column, value, row, field)

    def _group(self):
        pick = self._pick(False)
        if not pick:
            return self._key()
        table, column = pick
        row = self.rng.choice(table.rows)
        self._lookup("group", table, column, row, f" in {column} {row[column]}")

    def _key(self):
        pick = self._pick(True)
        if not pick:
            return self._group()
        table, column = pick
        self._lookup("key", table, column, self.rng.choice(table.rows), "")

    def _its(self):
        table, column, value, row, field = self.last
        other = self._field(table, {column, field})
        question = self.rng.choice((f"And its {other}?", f"And the {other}?"))
        self._ask("its", question, None, None, answer_text(table, row, other), row[other])
        self.last = (table, column, value, row, other)

    def _and(self):
        table, column, value, old, _ = self.last
        rows = [r for r in table.rows if r[column] == value and r is not old]
        if not rows:
            return self._its()
        row = self.rng.choice(rows)
        field, key = self._field(table, {column}), row[table.key]
        self._ask("and", f"And the {field} of {table.noun} {key}?", None, None,
                  answer_text(table, row, field), row[field])
        self.last = (table, column, value, row, field)

    def _that(self):
        """A question about the group that an earlier answer named: the call's argument is in the dialogue."""
        table, used, _, row, _ = self.last
        columns = [c for c in table.groups if c != used and table.tool_name(c) in self.by_name]
        if not columns:
            return self._and()
        column = self.rng.choice(columns)
        rows = [r for r in table.rows if r[column] == row[column]]
        self._lookup("that", table, column, self.rng.choice(rows), f" in that {column}")

    def _missing(self):
        pick = self._pick(False)
        if not pick:
            return self._key()
        table, column = pick
        value = self.rng.choice(table.rows)[column]
        key = fresh(lambda: self.world.key(table.key_kind), {r[table.key] for r in table.rows})
        field = self._field(table, {column})
        self._ask("missing", self._question(field, table.noun, key, f" in {column} {value}"),
                  (table.tool_name(column), {column: value}), table.select(column, value),
                  f"For {table.noun} {key}:\nThere is no {table.noun} {key}.", None)

    def _empty(self):
        table, column = self.rng.choice(list(self.by_name.values()))
        keyed = column == table.key
        value = fresh(lambda: self.world.key(table.key_kind) if keyed else self.world.name(),
                      {r[column] for r in table.rows})
        key = value if keyed else self.world.key(table.key_kind)
        tail = "" if keyed else f" in {column} {value}"
        self._ask("empty", self._question(self._field(table, {column}), table.noun, key, tail),
                  (table.tool_name(column), {column: value}), table.select(column, value),
                  f"For {table.noun} {key}:\nThere is no {table.noun} {key}.", None)

    def _notool(self):
        noun = fresh(lambda: self.world.word(NOUNS), set(self.used))
        key = self.world.key("number")
        self._ask("notool", self._question(self.world.word(FIELDS), noun, key), None, None,
                  f"There is no tool for {noun}.", None)

    def execute(self, name, arguments):
        """Runs a call for real; None when the tool or the argument does not exist."""
        if name not in self.by_name or not isinstance(arguments, dict):
            return None
        table, column = self.by_name[name]
        if set(arguments) != {column}:
            return None
        return table.select(column, str(arguments[column]))

    def messages(self, turns=None):
        out = [{"role": "system", "content": SYSTEM}]
        for turn in self.turns[:turns]:
            out.append({"role": "user", "content": turn["question"]})
            if turn["call"]:
                name, arguments = turn["call"]
                call = {"type": "function", "function": {"name": name, "arguments": arguments}}
                out.append({"role": "assistant", "content": "", "tool_calls": [call]})
                out.append({"role": "tool", "content": turn["result"]})
            out.append({"role": "assistant", "content": turn["answer"]})
        return out


def recall(world, pairs):
    """Rows of keys and values, then the same rows in another order: text whose second half is predictable. A table comes
    again as lines of a log, as answers quote it."""
    rng = world.rng
    kind = rng.choice(("number", "number", "name", "code"))
    columns = set()
    names = [fresh(lambda: world.word(FIELDS), columns) for _ in range(rng.randint(2, 5))]
    kinds = [rng.choice(("int", "decimal", "name", "code", "state", "date", "group", "group")) for _ in names]
    pools = [[world.name() for _ in range(rng.randint(1, 3))] for _ in names]
    keys, rows, form = set(), [], rng.choice(FORMS)
    for _ in range(pairs):
        row = {names[0]: fresh(lambda: world.key(kind), keys)}
        row.update((n, rng.choice(pool) if k == "group" else world.value(k)) for n, k, pool in zip(names[1:], kinds, pools))
        rows.append(row)
    again = print_rows(rng.sample(rows, pairs), "log" if form == "table" else form)
    return print_rows(rows, form) + "\n", again + "\n"


def dense(world, budget):
    """An episode with many questions on few results: most of its text is the assistant's."""
    rng = world.rng
    turns = max(2, int(budget * rng.uniform(0.3, 0.85)) // 80)
    kinds = rng.choices(("and", "its", "that", "group", "missing", "key", "empty"), (6, 4, 6, 1, 5, 1, 0.5), k=turns - 1)
    return Episode(world, budget, turns, ["group"] + kinds, turns)


def episode(seed, split="train", budget=512, **options):
    return Episode(World(random.Random(f"{split}-{seed}"), split), budget, **options)
