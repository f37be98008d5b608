# `make help` lists what there is. Everything needs root on a Debian machine.

SHELL := /bin/bash
CACHE ?= $(or $(VOLUME_POPULATOR_CACHE),$(HOME)/.cache/volume-populator)
export VOLUME_POPULATOR_CACHE := $(CACHE)
# Outside the clone, so that a fresh clone builds in a minute; cargo itself knows what is stale.
export CARGO_TARGET_DIR ?= $(CACHE)/target
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/local/go/bin
CARGO := cargo
RUN := $(CARGO) run --quiet --release --package tests --bin
# Always for the whole workspace: then dependencies have one set of features, and are built once.
DRIVER_SUITE := $(CARGO) test --release --workspace --features driver/failpoints --test suite

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

.PHONY: demo
demo: tools ## A PVC comes back from an S3 archive, on real Kubernetes; the cluster stays up
	@$(RUN) demo -- up

.PHONY: demo-down
demo-down: ## Takes the demo away: processes, mounts, loop devices, namespaces, files
	@if [ -x $(CARGO_TARGET_DIR)/release/demo ]; then $(CARGO_TARGET_DIR)/release/demo down; \
	else $(RUN) demo -- down; fi

.PHONY: test
test: tools lint ## Every check, in its short form
	$(CARGO) test --quiet --release --workspace --doc
	# The driver's own suite with its fail points; then the driver as it is shipped, for the others.
	$(DRIVER_SUITE) --lib --bins
	$(CARGO) build --quiet --release --workspace
	$(CARGO) test --release --workspace --exclude driver --test '*'

.PHONY: bench
bench: tools ## Tables of measurements; the same figures as JSON under target/bench/
	@$(RUN) bench

.PHONY: bench-cluster
bench-cluster: tools ## The part on a real cluster: one PVC, 50 at once beside their peers, and 1,000
	@$(RUN) bench -- cluster

.PHONY: e2e-storage
e2e-storage: tools ## Kubernetes' own end-to-end suite for external storage, every spec
	@$(RUN) e2e-storage

.PHONY: crash
crash: ## 1,000 rounds of kill -9 and 200 power cuts, at random moments of random operations
	CRASH_ROUNDS=$${CRASH_ROUNDS:-1000} POWER_ROUNDS=$${POWER_ROUNDS:-200} \
	$(DRIVER_SUITE) -- --nocapture --test-threads=1 model:: power::

# Coverage of every edge, and what is compared with what: libFuzzer on stable Rust.
FUZZ_FLAGS := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
FUZZ := populator/archive/fuzz
FUZZ_TARGETS := $(basename $(notdir $(wildcard $(FUZZ)/targets/*.rs)))

.PHONY: fuzz
fuzz: ## The readers of archives under libFuzzer, 10 minutes each (FUZZ_SECONDS)
	RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --quiet --locked --release --target x86_64-unknown-linux-gnu \
		--manifest-path $(FUZZ)/Cargo.toml --target-dir $(CARGO_TARGET_DIR)/fuzz
	for target in $(FUZZ_TARGETS); do \
		found=$(CARGO_TARGET_DIR)/fuzz/found/$$target; mkdir -p $$found/corpus; \
		$(CARGO_TARGET_DIR)/fuzz/x86_64-unknown-linux-gnu/release/$$target \
			-max_total_time=$${FUZZ_SECONDS:-600} -max_len=16384 -timeout=10 -rss_limit_mb=1024 \
			-print_final_stats=1 -artifact_prefix=$$found/ $$found/corpus $(FUZZ)/corpus/$$target \
			|| exit 1; \
	done

.PHONY: lint
lint: ## Formatting and clippy, warnings refused
	$(CARGO) fmt --all --check
	$(CARGO) clippy --quiet --release --workspace --all-targets -- --deny warnings
	# A workspace of its own, which nothing else here would notice to be out of date.
	$(CARGO) metadata --quiet --locked --format-version 1 --manifest-path $(FUZZ)/Cargo.toml >/dev/null

.PHONY: crds
crds: ## Writes crds/*.yaml anew from the code
	$(CARGO) run --quiet --release --package crds --example generate

.PHONY: docs
docs: ## Writes docs/troubleshooting.md anew from the code
	DOCS_WRITE=1 $(CARGO) test --quiet --release --workspace --test troubleshooting

.PHONY: tools
tools: ## Installs what is missing and builds the pinned Kubernetes components and the programs
	@tests/tools/install
	@tests/tools/prepare

.PHONY: sanity
sanity: tools ## csi-sanity for mounted and block volumes, with its own summaries
	$(DRIVER_SUITE) -- sanity --nocapture
