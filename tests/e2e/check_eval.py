"""`mixquant eval` on the bundled model, a few items of each task: equal seeds give equal reports, whatever the batch and
wherever an earlier run was cut; the report, the plots and the refusals are what the documentation says.

usage: check_eval.py MIXQUANT MODEL [TEST]
Needs Python's standard library only; exits with 1 and one line when something is wrong.
"""
import http.server
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import eval_stats  # noqa: E402

BINARY, MODEL = sys.argv[1:3]
SCRATCH = tempfile.mkdtemp()
ENGINE = ["-m", MODEL, "-t", "1", "--no-cache"]


def evaluate(*arguments, code=0, text=False, engine=ENGINE, **environment):
    done = subprocess.run([BINARY, "eval", *engine, *arguments], capture_output=True, timeout=300,
                          env={**os.environ, **environment})
    error = done.stderr.decode(errors="replace")
    assert done.returncode == code, f"{arguments}: exit {done.returncode}, expected {code}: {error}"
    if code:
        assert error.startswith("mixquant: ") and error.count("\n") == 1 and "expected" in error, error
    return error if code else done.stdout.decode() if text else done.stdout


def folder(name):
    return os.path.join(SCRATCH, name)


def test_agent_repeats():
    run = ["--task", "agent", "--limit", "4", "--plans", "control,nvfp4,mix", "-n", "64", "--json"]
    first = evaluate(*run, "-o", folder("a"))
    assert first == evaluate(*run), "another run, nothing on disk: expected the same report"
    assert first == evaluate(*run, "--batch", "1"), "one item at a time: expected the same report"
    with open(folder("a") + "/agent.jsonl", "rb") as file:
        lines = file.read()
    assert lines.count(b"\n") == 1 + 4 * 4, "expected a header and one record for each item and plan"
    os.mkdir(folder("b"))
    with open(folder("b") + "/agent.jsonl", "wb") as file:
        file.write(lines[:len(lines) * 3 // 5])  # killed in the middle of a line
    assert first == evaluate(*run, "-o", folder("b")), "after a cut: expected the same report"
    assert first == evaluate(*run, "-o", folder("b")), "nothing left to do: expected the same report"
    with open(folder("b") + "/agent.jsonl", "rb") as file:
        assert sorted(file.read().splitlines()) == sorted(lines.splitlines()), "expected the same records"
    report = json.loads(first)["tasks"]["agent"]
    assert report["items"] == 4 and {"episode", "turn", "call", "answer"} < set(report["metrics"])
    for cell in report["metrics"]["turn"].values():
        assert 0 <= cell["low"] <= cell["mean"] <= cell["high"] <= 1, cell
    pairs = {(c["plan"], c["against"]) for c in report["compare"]}
    control = "bf16+int8-attention"
    assert pairs == {("nvfp4", "bf16"), ("mix", "bf16"), ("mix", "nvfp4"), (control, "bf16")}, pairs
    assert all(c["family"] == "control" and c["p"] == 1 for c in report["compare"] if c["plan"] == control), report["compare"]
    eval_stats.check(folder("a"), "agent")


def test_sampling_repeats():
    run = ["--task", "agent", "--limit", "3", "--plans", "mix", "-n", "40", "--temp", "3", "--json"]
    first = evaluate(*run)
    assert first == evaluate(*run, "--batch", "2"), "sampled answers: expected the same report"
    evaluate(*run[:-1], "-o", folder("s1"))
    evaluate(*run[:-1], "--seed", "7", "-o", folder("s7"))
    records = [open(folder(name) + "/agent.jsonl").read().split("\n", 1)[1] for name in ("s1", "s7")]
    assert records[0] != records[1], "another seed: expected other answers"


def test_every_task():
    out = folder("all")
    table = evaluate("--task", "agent,ruler,ppl,kld,attention", "--quick", "--limit", "2", "-n", "24", "--lengths", "800",
                     "--plans", "bf16,nvfp4,mix,inverse", "-o", out, text=True)
    for task in ("agent", "ruler", "ppl", "kld", "attention"):
        assert f"{task}: " in table, f"{task}: expected it in the table"
    report = json.load(open(out + "/report.json"))["tasks"]
    means = {metric: {plan: cell["mean"] for plan, cell in cells.items()}
             for task in ("ppl", "kld", "attention") for metric, cells in report[task]["metrics"].items()}
    for metric in ("decode_kld", "prefill_kld", "key_error", "value_error"):
        assert means[metric]["bf16"] == 0, f"{metric}: expected BF16 to equal itself"
    assert means["prefill_kld"]["inverse"] == 0 < means["decode_kld"]["inverse"], "inverse: only decoding is quantised"
    assert means["prefill_kld"]["mix"] == means["prefill_kld"]["nvfp4"] > 0, "mix and nvfp4 share their prefill"
    assert means["loss"]["mix"] == means["loss"]["nvfp4"] != means["loss"]["bf16"], "reading is prefill"
    for task in report:
        eval_stats.check(out, task)
    plots = [name for name in os.listdir(out) if name.endswith(".svg")]
    assert {"agent-episode.svg", "tokens-by-task.svg", "kld-teacher-forced-KL-by-step.svg"} <= set(plots), plots
    for name in plots:
        xml.etree.ElementTree.parse(os.path.join(out, name))


def test_kld_ends_with_the_answer():
    """Nothing behind the answer's end mark is compared; with --temp the answer is drawn, and repeats."""
    run = ["--task", "kld", "--limit", "3", "--plans", "bf16,nvfp4", "-n", "128"]
    evaluate(*run, "-o", folder("ends"))
    for plan, records in eval_stats.records_of(folder("ends") + "/kld.jsonl").items():
        for record in records.values():
            tokens = record["answer_tokens"]
            assert 4 < tokens < 128, f"{plan}: expected an answer with an end, got {tokens} tokens"
            for name, curve in record["curves"].items():
                assert len(curve["x"]) == len(curve["y"]) == tokens, f"{name}: expected {tokens} points"
            assert plan != "bf16" or record["free_same"] == 1 and record["divergence_step"] == tokens, record
    drawn = [evaluate(*run, "--temp", "3", "--json") for _ in range(2)]
    assert drawn[0] == drawn[1] != evaluate(*run, "--json"), "drawn answers: expected the same twice, and not the greedy ones"
    means = json.loads(drawn[0])["tasks"]["kld"]["metrics"]
    assert means["free_same"]["bf16"]["mean"] == 1 and means["decode_kld"]["bf16"]["mean"] == 0, means


def test_ways_of_reading():
    """+reprefill reads the answers of earlier turns once more; +last16 changes what the prompt's last tokens ran in, only."""
    run = ["--task", "agent", "--limit", "3", "--plans", "bf16,mix,mix+reprefill,mix+last16,bf16+reprefill,bf16+last16"]
    evaluate(*run, "-o", folder("ways"))
    records = eval_stats.records_of(folder("ways") + "/agent.jsonl")
    for name, record in records["bf16+reprefill"].items():
        kept = records["bf16"][name]
        if kept["output_tokens"] == record["output_tokens"]:
            more, turns = record["input_tokens"] - kept["input_tokens"], 2 * len(record["turns"])
            # all answers but the last one, which no prompt holds
            assert kept["output_tokens"] / 2 <= more <= kept["output_tokens"] + turns, (more, kept["output_tokens"])
    for plan in ("bf16+last16", "bf16"):
        for name, record in records[plan].items():
            assert record["input_tokens"] == records["bf16"][name]["input_tokens"], (plan, name)
    header = json.loads(open(folder("ways") + "/agent.jsonl").readline())["plans"]
    assert header["mix+last16"]["precise"] == 16 and header["mix+reprefill"]["reprefill"] and "precise" not in header["mix"], header
    run = ["--task", "kld", "--limit", "2", "-n", "24", "--plans", "mix,mix+last16,mix+last5000", "--json"]
    means = json.loads(evaluate(*run))["tasks"]["kld"]["metrics"]
    assert 0 < means["prefill_kld"]["mix+last16"]["mean"] != means["prefill_kld"]["mix"]["mean"] > 0, means["prefill_kld"]
    assert means["prefill_kld"]["mix+last5000"]["mean"] < 1e-6, "all of it in the decode plan: expected BF16's logits"
    for plan in ("mix+last", "mix+last0", "mix+lastx", "mix+re", "mix+"):
        evaluate("--task", "agent", "--plans", plan, code=2)


def test_ledger():
    """A limit has all numbers of steps and lengths; the survival of each is plotted. (The bundled model cannot do it.)"""
    run = ["--task", "ledger", "--limit", "6", "--plans", "bf16,mix", "-n", "48", "-o", folder("ledger")]
    evaluate(*run)
    report = json.load(open(folder("ledger") + "/report.json"))["tasks"]["ledger"]
    assert set(report["groups"]) == {f"{n} steps {length}" for n in (20, 30, 40) for length in (2048, 3072)}, report["groups"]
    assert report["curves"]["survival by step"]["bf16"]["x"] == list(range(1, 41)), "expected a curve of 40 steps"
    eval_stats.check(folder("ledger"), "ledger")
    xml.etree.ElementTree.parse(folder("ledger") + "/ledger-survival-by-step.svg")
    for record in eval_stats.records_of(folder("ledger") + "/ledger.jsonl")["mix"].values():
        length = int(record["group"].split()[-1])
        assert length - 110 < record["prompt_tokens"] <= length, record  # as many rows as fit
    evaluate("--task", "ledger", "--lengths", "4096", code=2)
    evaluate("--task", "ledger", "--lengths", "512", code=2)


def test_ledger_model():
    """The bundled model that the task is for walks through short tables to their ends."""
    model = os.path.join(os.path.dirname(MODEL.rstrip("/")), "mixquant-ledger")
    evaluate("--task", "ledger", "--lengths", "1024", "--limit", "2", "--plans", "bf16", "-o", folder("walks"),
             engine=["-m", model, "-t", "1", "--no-cache"])
    records = eval_stats.records_of(folder("walks") + "/ledger.jsonl")["bf16"].values()
    assert sum(record["right_lines"] for record in records) >= 40, [record["right_lines"] for record in records]


def test_text_file():
    path = folder("words.txt")
    with open(path, "w") as file:
        file.write("one two three four five " * 200)
    report = json.loads(evaluate("--task", "ppl", "--text", path, "--lengths", "128", "--limit", "3", "--plans", "bf16",
                                 "--json"))
    assert report["tasks"]["ppl"]["items"] == 3


def test_texts_hold_whole_answers():
    """Of a right answer all lines are read, not the statement alone: a text with them has more tokens, by their own count."""
    model, counts = folder("model"), {}
    os.mkdir(model)
    for name in os.listdir(MODEL):
        if name != "episodes.jsonl":
            os.symlink(os.path.abspath(os.path.join(MODEL, name)), os.path.join(model, name))
    with open(os.path.join(MODEL, "episodes.jsonl")) as file:
        scene = json.loads(file.readline())
    assert all(turn["answer"].split("\n")[-1] == turn["expect"] for turn in scene["turns"])
    for kind in ("whole", "last"):
        with open(os.path.join(model, "episodes.jsonl"), "w") as file:
            for turn in scene["turns"]:
                turn["answer"] = turn["answer"] if kind == "whole" else turn["answer"].split("\n")[-1]
            file.write(json.dumps(scene) + "\n")
        evaluate("--task", "ppl", "--plans", "bf16", "-o", folder(kind), engine=["-m", model, "-t", "1", "--no-cache"])
        counts[kind] = eval_stats.records_of(folder(kind) + "/ppl.jsonl")["bf16"][scene["id"]]["predicted"]
    assert counts["whole"] > counts["last"] + 10 * len(scene["turns"]), counts


def copy_of_model(name):
    """A folder with links to the model's files, of which the weights are bytes of its own."""
    copy = folder(name)
    os.mkdir(copy)
    for file in os.listdir(MODEL):
        if file == "model.safetensors":
            shutil.copy(os.path.join(MODEL, file), copy)
        else:
            os.symlink(os.path.abspath(os.path.join(MODEL, file)), os.path.join(copy, file))
    return copy


def change_weights(directory):
    """The last byte of the file, in place: same size, same name, a weight that hardly matters."""
    path = os.path.join(directory, "model.safetensors")
    os.chmod(path, 0o600)
    with open(path, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))


def write_plan(path, layers):
    with open(path, "w") as file:
        json.dump({"layers": [{"layers": layers, "prefill": "bf16"}]}, file)


def test_records_know_what_made_them():
    """Records are continued by a run of the same plans, checkpoints and kernel level only; others are refused by name."""
    model, prefill, out, plan = copy_of_model("m"), folder("prefill"), folder("known"), folder("known.json")
    subprocess.run([BINARY, "quantize", "-m", MODEL, "-o", prefill], check=True, capture_output=True, timeout=300)
    write_plan(plan, "0")
    engine = ["-m", model, "--prefill-model", prefill, "-t", "1", "--no-cache"]
    run = ["--task", "agent", "--limit", "1", "-n", "4", "-o", out, "--plans"]
    path = os.path.join(out, "agent.jsonl")

    def refused(names, plans=f"mix,{plan}", **environment):
        before = open(path, "rb").read()
        error = evaluate(*run, plans, code=2, engine=engine, **environment)
        assert names in error and "to start anew" in error, error
        assert open(path, "rb").read() == before, "expected the file as it was"

    evaluate(*run, f"mix,{plan}", engine=engine)
    header = json.loads(open(path).readline())
    assert header["plans"][plan]["file"] == open(plan).read(), header
    assert header["plans"]["mix"]["prefill"] == "nvfp4" and header["plans"]["mix"]["decode"] == "bf16", header
    assert header["isa"] and header["model"] and header["prefill_model"] not in ("", header["model"]), header
    before = open(path, "rb").read()
    evaluate(*run, f"mix,{plan}", engine=engine)
    assert open(path, "rb").read() == before, "nothing left to do: expected the file as it was"

    write_plan(plan, "1")
    refused(f"plan {plan}")
    evaluate(*run, "mix", engine=engine)  # whose records are none of that plan's
    write_plan(plan, "0")
    evaluate(*run, "bf16", engine=engine)  # a plan more: the header has all three
    assert set(json.loads(open(path).readline())["plans"]) == {"mix", plan, "bf16"}
    assert sum(1 for line in open(path)) == 4 and len(eval_stats.records_of(path)) == 3

    refused("kernel level", MQ_ISA="avx2" if header["isa"] != "avx2" else "ref")
    shutil.copytree(prefill, folder("elsewhere"))
    evaluate(*run, f"mix,{plan}", engine=["-m", model, "--prefill-model", folder("elsewhere"), *engine[4:]])  # the same bytes
    change_weights(prefill)
    refused("prefill checkpoint")
    change_weights(prefill)
    change_weights(model)
    refused(": checkpoint")
    change_weights(model)
    evaluate(*run, f"mix,{plan}", engine=engine)

    old = {key: value for key, value in header.items() if key not in ("plans", "isa")}
    with open(path, "w") as file:
        file.write(json.dumps({**old, "model": "0123456789abcdef", "prefill_model": prefill}) + "\n")
    refused("another version")


def test_nothing_stays_of_a_failed_start():
    bad = folder("plan.json")
    with open(bad, "w") as file:
        file.write('{"layers": 5}')
    for run in (["--task", "nothing"], ["--task", "agent", "--data", folder("missing")], ["--task", "ruler", "--kinds", "double"],
                ["--task", "agent", "--limit", "1", "--plans", f"bf16,{bad}"],
                ["--task", "agent", "--limit", "1", "--plans", f"bf16,{folder('missing')}.json"],
                ["--task", "attention", "--lengths", "17"]):
        done = subprocess.run([BINARY, "eval", *ENGINE, *run, "-o", folder("f/deep")], capture_output=True, timeout=300)
        assert done.returncode in (2, 3), (run, done.stderr)
        assert not os.path.exists(folder("f")), f"{run}: expected no folder"
    os.mkdir(folder("g"))
    with open(folder("g") + "/agent.jsonl", "wb") as file:
        file.write(b'{"task":"another"}\n{"half')
    evaluate("--task", "agent", "--limit", "1", "--plans", "bf16", "-o", folder("g"), code=2)
    assert open(folder("g") + "/agent.jsonl", "rb").read() == b'{"task":"another"}\n{"half', "expected the file as it was"
    assert os.listdir(folder("g")) == ["agent.jsonl"]
    with open(folder("file"), "w"):
        pass
    assert "file/out" in evaluate("--task", "agent", "--limit", "1", "--plans", "bf16", "-o", folder("file/out"), code=1)


class Judge(http.server.BaseHTTPRequestHandler):
    """Says yes to refusals and to what is consistent; fails the first request."""
    asked = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Judge.asked.append((self.path, self.headers["Authorization"], body))
        question = body["messages"][0]["content"]
        if len(Judge.asked) == 1:
            return self.send_error(503)
        verdict = "<think>no, or</think>\nYes." if "cannot be answered" in question or "consistent" in question else "no"
        reply = json.dumps({"choices": [{"message": {"role": "assistant", "content": verdict}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *arguments):
        pass


def judge_documents(url):
    os.makedirs(folder("lcr/lcr/Legal/set"))
    with open(folder("lcr/AA-LCR_Dataset.csv"), "w") as file:
        file.write('document_category,document_set_id,question_id,question,answer,data_source_filenames\n'
                   'Legal,set,1,"What is the cost of Bergen? What color?",blue,one.txt\n')
    with open(folder("lcr/lcr/Legal/set/one.txt"), "w") as file:
        file.write("It is blue.")
    evaluate("--task", "aa-lcr", "--data", folder("lcr"), "-n", "8", "--plans", "bf16", "--judge-url", url, "--judge-model", "J",
             "-o", folder("judged"), MQ_JUDGE_KEY="secret")
    record = eval_stats.records_of(folder("judged") + "/aa-lcr.jsonl")["bf16"]["set-1"]
    assert record["judged"] == 1, (record, Judge.asked)


def test_judge():
    """--judge-url: questions reach the endpoint with their key, a failure is tried again, refusals are asked as well."""
    items = [{"question_id": name, "question_type": "single", "question": "What color?", "answer": "blue",
              "question_date": "2023/05/20 (Sat) 02:21", "haystack_dates": ["2023/05/20 (Sat) 02:21"],
              "haystack_sessions": [[{"role": "user", "content": "It is blue."}]]} for name in ("one", "two_abs")]
    path = folder("longmemeval.json")
    with open(path, "w") as file:
        json.dump(items, file)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1"
    run = ["--task", "longmemeval", "--data", path, "-n", "8", "--plans", "bf16"]
    if "without" in str(subprocess.run([BINARY, "eval", *ENGINE, *run, "--judge-url", url], capture_output=True).stderr):
        return server.shutdown()  # a build without libcurl says so
    Judge.asked.clear()
    evaluate(*run, "--judge-url", url + "/", "--judge-model", "J", "-o", folder("judged"), MQ_JUDGE_KEY="secret")
    judge_documents(url)
    server.shutdown()
    server.server_close()
    records = eval_stats.records_of(folder("judged") + "/longmemeval.jsonl")["bf16"]
    assert records["one"]["judged"] == 0 and records["two_abs"]["judged"] == 1, records
    assert "contains" in records["one"] and "contains" not in records["two_abs"], records
    assert len(Judge.asked) == 4, Judge.asked  # the first one twice
    for where, key, body in Judge.asked:
        assert where == "/v1/chat/completions" and key == "Bearer secret" and body["model"] == "J", (where, key, body)
        assert body["temperature"] == 0 and "What color?" in body["messages"][0]["content"], body
    evaluate(*run, "-o", folder("alone"))
    assert set(eval_stats.records_of(folder("alone") + "/longmemeval.jsonl")["bf16"]) == {"one"}
    assert "judge" in evaluate(*run, "--judge-url", url, code=3), "nobody there"
    evaluate(*run, "-o", folder("judged"), code=2)  # without the judge: other records


def test_refusals():
    for tasks in ([], ["--task", ","], ["--task", "nothing"]):
        error = evaluate(*tasks, code=2)
        for name in ("agent", "ruler", "ppl", "kld", "attention", "bfcl", "gsm8k", "longbench-v2", "longmemeval",
                     "aa-lcr", "ledger"):
            assert name in error, error
    evaluate("--task", "agent", "--plans", "bf8", code=2)
    evaluate("--task", "agent", "--plans", "mix,mix", code=2)
    evaluate("--task", "agent", "--plan", "x.json", code=2)
    evaluate("--task", "agent", "--last", "64", code=2)
    evaluate("--task", "ruler", "--kinds", "double", code=2)
    assert "--data" in evaluate("--task", "ruler", "--kinds", "qa", code=2)
    evaluate("--task", "ruler", "--lengths", "9999999", code=2)
    evaluate("--task", "attention", "--lengths", "17", code=2)
    evaluate("--task", "agent", "--data", folder("missing"), code=3)
    evaluate("--task", "ppl", "--text", folder("missing"), code=3)
    evaluate("--task", "agent", "--limit", "2", "-n", "16", "--plans", "bf16", "-o", folder("r"))
    assert "seed: expected records of" in evaluate("--task", "agent", "--seed", "1", "--limit", "2", "-n", "16", "--plans", "bf16",
                                                     "-o", folder("r"), code=2)


failed = 0
for name, test in list(globals().items()):
    if name.startswith(sys.argv[3] if len(sys.argv) > 3 else "test_"):
        try:
            test()
        except AssertionError as error:
            print(f"{name}: {error}")
            failed = 1
shutil.rmtree(SCRATCH)
sys.exit(failed)
