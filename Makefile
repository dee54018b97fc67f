# Thin calls of CMake and scripts/. BUILD, JOBS and CC can be set on the command line.
BUILD ?= build
JOBS  ?= $(shell nproc)
PREFIX ?= /usr/local

.PHONY: all deps demo check check-fast san bench lint install clean

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

lint:
	scripts/lint $(BUILD)

install: all
	cmake --install $(BUILD)

clean:
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang
