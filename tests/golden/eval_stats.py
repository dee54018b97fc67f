"""The statistics of `mixquant eval` once more, from its records: exact fractions where the program has doubles, all sign
patterns one by one where it splits them. check_eval.py compares report.json with this.
"""
import itertools
import json
import math
from fractions import Fraction

STATED = {("nvfp4", "bf16"): "stated", ("mix", "nvfp4"): "stated", ("mix", "inverse"): "stated",
          ("bf16+int8-attention", "bf16"): "control"}  # each family is corrected on its own
PLAIN = {"agent": {"episode", "tool_wrong", "argument_wrong", "quote_wrong", "statement_wrong"}, "ruler": {"all"}, "ledger": {"last", "copy_wrong", "total_wrong"}}  # metrics that are 0 or 1


def records_of(path):
    """{plan: {id: record}} of a folder's TASK.jsonl."""
    plans = {}
    with open(path) as file:
        next(file)
        for line in file:
            record = json.loads(line)
            plans.setdefault(record["plan"], {})[record["id"]] = record
    return plans


def mcnemar(wins, losses):
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(Fraction(1), Fraction(2 * tail, 2 ** n))


def sign_flip(differences):
    """The share of sign patterns with a sum as far from 0 as the one seen; of at most 16 differences that are not 0."""
    values = [Fraction(d) for d in differences if d]
    seen = abs(sum(values))
    far = sum(abs(sum(s * v for s, v in zip(signs, values))) >= seen
              for signs in itertools.product((1, -1), repeat=len(values)))
    return Fraction(far, 2 ** len(values))


def wilson(successes, n, z=1.959963984540054):
    """The two shares whose own normal interval just reaches successes / n: the roots of (p - q)^2 = z^2 p (1 - p) / n."""
    q, a = successes / n, z * z / n
    root = math.sqrt((2 * q + a) ** 2 - 4 * (1 + a) * q * q)
    return (2 * q + a - root) / (2 * (1 + a)), (2 * q + a + root) / (2 * (1 + a))


def holm(values):
    order, corrected, largest = sorted(range(len(values)), key=values.__getitem__), [0] * len(values), 0
    for rank, i in enumerate(order):
        largest = max(largest, min(1, (len(values) - rank) * values[i]))
        corrected[i] = largest
    return corrected


def expect(what, got, wanted):
    assert math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9), f"{what}: expected {float(wanted)}, got {got}"


def check_cells(task, report, records):
    weight = "predicted" if task == "ppl" else None
    for metric, cells in report["metrics"].items():
        for plan, cell in cells.items():
            found = [r for r in records[plan].values() if isinstance(r.get(metric), (int, float))]
            total = sum(r[weight] if weight else 1 for r in found)
            if metric == "perplexity":
                mean = math.exp(sum(r["loss"] * r[weight] for r in found) / total)
            else:
                mean = sum(r[metric] * (r[weight] if weight else 1) for r in found) / total
            expect(f"{task} {metric} {plan}", cell["mean"], mean)
            binary = metric in PLAIN.get(task, ())
            assert cell["interval"] == ("Wilson" if binary else "bootstrap"), cell
            if binary:
                low, high = wilson(sum(r[metric] for r in found), len(found))
                expect(f"{task} {metric} {plan}: low", cell["low"], low)
                expect(f"{task} {metric} {plan}: high", cell["high"], high)


def differences(task, metric, a, b):
    weight = "predicted" if task == "ppl" else None
    metric = "loss" if metric == "perplexity" else metric
    return [Fraction(a[i][metric]) * (a[i][weight] if weight else 1) - Fraction(b[i][metric]) * (a[i][weight] if weight else 1)
            for i in a if i in b and isinstance(a[i].get(metric), (int, float)) and isinstance(b[i].get(metric), (int, float))]


def check_comparisons(task, report, records):
    """p of every comparison; of metrics that are no doubles' rounding away from ties, so that the counts must agree."""
    families = {}
    for item in report["compare"]:
        found = differences(task, item["metric"], records[item["plan"]], records[item["against"]])
        what = f"{task} {item['metric']} {item['plan']} - {item['against']}"
        if item["metric"] in PLAIN.get(task, ()):
            assert item["test"] == "exact McNemar", item
            expect(what, item["p"], mcnemar(sum(d > 0 for d in found), sum(d < 0 for d in found)))
        elif sum(d != 0 for d in found) <= 16:
            assert item["test"] == "exact sign flip", item
            expect(what, item["p"], sign_flip(found))
        family = STATED.get((item["plan"], item["against"]), "other")
        assert item["family"] == family, item
        families.setdefault((item["metric"], family), []).append(item)
    for (metric, _), items in families.items():
        for item, corrected in zip(items, holm([i["p"] for i in items])):
            expect(f"{task} {metric} {item['plan']}: Holm", item["p_holm"], corrected)


def check(folder, task):
    with open(f"{folder}/report.json") as file:
        report = json.load(file)["tasks"][task]
    records = records_of(f"{folder}/{task}.jsonl")
    check_cells(task, report, records)
    check_comparisons(task, report, records)
