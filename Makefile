# Thin calls of CMake and scripts/. BUILD, JOBS and CC can be set on the command line.
BUILD ?= build
JOBS  ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: all deps demo check check-fast san bench eval eval-quick lint install clean

all:
	cmake -S . -B $(BUILD) -DCMAKE_INSTALL_PREFIX=$(PREFIX) $(CMAKE_FLAGS)
	cmake --build $(BUILD) -j $(JOBS)

deps:
	scripts/install-deps

# A fresh Debian machine to a finished agent episode.
demo: deps all
	$(BUILD)/mixquant agent

# All tests; ends with CTest's summary.
check: deps all lint
	scripts/run-tests $(BUILD)

# The tier for every edit: under five minutes.
check-fast: all
	scripts/run-tests $(BUILD) -L fast

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

lint:
	scripts/lint $(BUILD)

install: all
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang
