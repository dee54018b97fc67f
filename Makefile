# Thin calls of CMake and scripts/. BUILD, JOBS and CC can be set on the command line.
BUILD ?= build
JOBS  ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: all deps demo check check-fast check-agents check-arm san bench eval eval-quick eval-fresh eval-ledger eval-gptq lint install clean

all:
	cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)
	cmake --build $(BUILD) -j $(JOBS)

deps:
	scripts/install-deps

# A fresh Debian machine to a finished agent episode, and a served request.
demo: deps all
	$(BUILD)/mixquant agent
	scripts/demo-serve $(BUILD)/mixquant

# All tests; ends with CTest's summary.
check: deps all lint
	scripts/run-tests $(BUILD)

# The tier for every edit: under five minutes.
check-fast: all
	scripts/run-tests $(BUILD) -L fast

# The agents that docs/AGENTS.md names, from npm, against the server's HTTP code: 1.3 GB of packages.
check-agents:
	$(MAKE) all CMAKE_FLAGS="$(CMAKE_FLAGS) -DMQ_AGENT_TESTS=ON"
	scripts/run-tests $(BUILD) -L agents

# Cross-built for 64-bit ARM: every NEON level's kernels and the unit tests under qemu-user. Hours on two cores.
check-arm:
	scripts/install-deps arm
	scripts/check-arm $(abspath $(BUILD))

# The tests once more under AddressSanitizer and UBSan, and the threaded ones under ThreadSanitizer.
san: deps
	scripts/run-sanitizers $(BUILD)

bench: all
	$(BUILD)/mixquant cpu
	$(BUILD)/tests/kernels/checkasm --bench
	$(BUILD)/mixquant bench --shape qwen3-0.6b

# The paper's comparison on the bundled model, every task: records, report and plots in EVAL_DIR, the table printed. A run
# that was stopped goes on where it was (docs/EVALUATION.md).
EVAL_DIR ?= $(BUILD)/eval
EVAL_TASKS ?= agent,ruler,ppl,kld,attention
EVAL_PLANS ?= bf16,w4a16,nvfp4,mix,inverse

eval: all
	$(BUILD)/mixquant eval --task $(EVAL_TASKS) --plans $(EVAL_PLANS) -o $(EVAL_DIR)

eval-quick: all
	$(BUILD)/mixquant eval --task $(EVAL_TASKS) --plans $(EVAL_PLANS) --quick -o $(EVAL_DIR)-quick

# The comparisons that were stated beforehand, with their control, on 2,000 fresh episodes (docs/EVALUATION.md). PYTHON needs jinja2.
PYTHON ?= python3

eval-fresh: all
	mkdir -p $(EVAL_DIR)-fresh
	test -f $(EVAL_DIR)-fresh/episodes.jsonl || $(PYTHON) tools/train/episodes.py models/mixquant-agent --first 10000 --count 2000 -o $(EVAL_DIR)-fresh/episodes.jsonl
	$(BUILD)/mixquant eval --task agent --data $(EVAL_DIR)-fresh/episodes.jsonl --plans control,nvfp4,mix,inverse -o $(EVAL_DIR)-fresh

# The same comparisons where the answer computes: walks that add up, by the model that was trained for them (docs/eval/ledger.md).
eval-ledger: all
	$(BUILD)/mixquant eval --task ledger --limit 2000 -m models/mixquant-ledger --plans bf16,nvfp4,mix,inverse -o $(EVAL_DIR)-ledger

# The same with GPTQ's codes for the NVFP4 weights: what is left of the difference is the activations'.
eval-gptq: all
	test -d $(EVAL_DIR)-gptq/weights || $(BUILD)/mixquant quantize -m models/mixquant-agent -o $(EVAL_DIR)-gptq/weights --method gptq --scales four-six
	$(BUILD)/mixquant eval --task agent,kld --plans bf16,w4a16,nvfp4,mix --prefill-model $(EVAL_DIR)-gptq/weights -o $(EVAL_DIR)-gptq

lint:
	scripts/lint $(BUILD)

install: all
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-sanitizers $(BUILD)-asserts-off $(BUILD)-tsan $(BUILD)-arm
