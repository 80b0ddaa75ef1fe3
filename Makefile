# One command a habit. `make demo` or `make test` on a fresh Debian 12 machine does everything from system packages on.
# Variables: TAILOR_CACHE (libraries and models, default ~/.cache/tailor), NATIVE=OFF (any x86-64 with AVX2), JOBS,
# CMAKE_ARGS (docs/BUILD.md), SETUP_ARGS (scripts/setup.sh --help), DATA (real data sets).
override export TAILOR_CACHE := $(abspath $(or $(TAILOR_CACHE),$(HOME)/.cache/tailor))
NATIVE ?= ON
export TAILOR_NATIVE := $(NATIVE)
DATA ?= ../shared/data
CMAKE_ARGS ?=
SETUP_ARGS ?=
JOBS ?= $(shell PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1 python3 -m tailor_setup.jobs)
OWN = $(shell git ls-files '*.cpp' '*.h')

.DEFAULT_GOAL := build
.PHONY: help setup build debug demo dist test test-all test-methods test-web test-clients test-dist test-image bench format tidy peers clean
.NOTPARALLEL:

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 20

setup:           ## system packages, pinned libraries, default models, llama.cpp, XGrammar
	@scripts/setup.sh $(SETUP_ARGS)

build: setup     ## the release build; leaves ./tailor here
	@scripts/build.sh release "$(JOBS)" $(CMAKE_ARGS)

debug: setup     ## build/debug, with assertions
	@scripts/build.sh debug "$(JOBS)" $(CMAKE_ARGS)

demo: build      ## fit on the project's own example
	@scripts/demo.sh

test: build      ## unit, recipe and parity tests
	@python3 scripts/run_tests.py --build build/release --jobs $(JOBS)

test-all:        ## test, sanitizers, benchmarks' smoke runs, real data
	@scripts/test_all.sh "$(JOBS)" "$(DATA)"

test-methods: build ## every method of `tune` on everything it applies to: a quarter of an hour
	@python3 scripts/test_methods.py

test-web: build  ## the page at / in a headless browser (fetches Chromium and Playwright)
	@python3 scripts/test_web.py

dist:            ## the release archive for any x86-64-v2, in build/dist
	@python3 scripts/dist.py --jobs $(JOBS)

test-dist: dist  ## the archive in an empty chroot, also on a processor without AVX2 (root; qemu-user-static)
	@python3 scripts/test_dist.py

test-image:      ## the container image of what is committed, built and run (root; podman, buildah, runc)
	@python3 scripts/test_image.py

test-clients: build ## the server against clients from PyPI and npm, and schemathesis
	@scripts/setup.sh --clients
	@python3 scripts/test_clients.py

bench: build     ## the figures of docs/BENCHMARKS.md; DATA=directory, PARTS="embed score ..."
	@python3 scripts/bench.py --data "$(DATA)" $(PARTS)

peers:           ## Python environment of golden scripts and benchmarks' peers
	@scripts/setup.sh --peers

format:          ## clang-format on our own files
	@clang-format -i $(OWN)

tidy: build      ## clang-tidy on our own sources
	@run-clang-tidy -quiet -p build/release -j $(JOBS) -extra-arg=-Wno-unknown-warning-option '$(CURDIR)/(src|apps|recipes)/.*\.cpp$$'

clean:           ## what builds made here; the cache stays
	@rm -rf build tailor tailor-tune
