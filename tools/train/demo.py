"""Writes the scenario of the `mixquant agent` command: `python3 tools/train/demo.py models/mixquant-agent/demo.json`.

A held-out world: its nouns and columns are of the held-out lists and every name and number is on the held-out
side of the checksum split. The format is described in README.md here.
"""
import json
import random
import sys

import world

CITIES = """Lisbon Oslo Turin Bergen Porto Krakow Malmo Gdansk Nantes Bremen Dresden Tampere Leeds Zagreb Split
    Riga Basel Graz Aarhus Bilbao Ghent Lyon Milan Naples Seville Tallinn Utrecht Vilnius Verona Cork""".split()
FIRMS = "Nordex Baltro Kestrel Marlin Falko Tandem Orbis Velox Trinex Delmar Rondo Zenith Pelikan Astra".split()
SEED, ROWS = 11, 34


def held(words, count):
    found = [w for w in words if world.is_held(w)]
    assert len(found) >= count, found
    return found[:count]


def tool(name, about, argument, table, columns):
    return {
        "name": name,
        "description": about,
        "parameters": {"type": "object", "properties": {argument: {"type": "string"}}, "required": [argument]},
        "table": table,
        "filter": {argument: argument},
        "columns": columns,
        "limit": 64,
    }


def main():
    rng = random.Random(SEED)
    w = world.World(rng, "held")
    depots, carriers = held(CITIES, 2), held(FIRMS, 2)
    keys, parcels, invoices = set(), [], []
    for i in range(ROWS * 2):
        parcels.append({"number": world.fresh(lambda: w.number(4, 5), keys), "depot": depots[i % 2],
                        "carrier": rng.choice(carriers), "stage": rng.choice(("sent", "lost", "open", "done", "late")),
                        "cost": w.value("decimal")})
    for i in range(ROWS):
        invoices.append({"label": world.fresh(w.code, keys), "carrier": carriers[i % 2],
                         "amount": w.value("int"), "due": w.value("date")})
    rng.shuffle(parcels)
    here = [r for r in parcels if r["depot"] == depots[0]]
    a, b, c = here[len(here) // 3], here[-4], invoices[9]
    scene = {
        "system": world.SYSTEM,
        "tools": [
            tool("find_parcel_by_depot", "List parcel by depot", "depot", "parcel", list(parcels[0])),
            tool("find_invoice_by_carrier", "List invoice by carrier", "carrier", "invoice", list(invoices[0])),
            tool("find_parcel", "One parcel by number", "number", "parcel", list(parcels[0])),
        ],
        "turns": [
            {"user": f"What is the cost of parcel {a['number']} in depot {depots[0]}?", "call": "find_parcel_by_depot",
             "expect": a["cost"]},
            {"user": f"And the stage of parcel {b['number']}?", "call": None, "expect": b["stage"]},
            {"user": f"Tell me the amount of invoice {c['label']} in carrier {c['carrier']}.",
             "call": "find_invoice_by_carrier", "expect": str(c["amount"])},
        ],
        "tables": {"parcel": parcels, "invoice": invoices},
    }
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        rows = {name: "[\n    " + ",\n    ".join(world.row_text(r) for r in table) + "\n   ]"
                for name, table in scene.pop("tables").items()}
        text = json.dumps(scene, indent=1, ensure_ascii=False)
        tables = ",\n".join(f'   "{name}": {body}' for name, body in rows.items())
        file.write(text[:-2] + ',\n "tables": {\n' + tables + "\n }\n}\n")


if __name__ == "__main__":
    main()
