# Two commands are the whole set-up: `make demo` and `make test`.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.PHONY: help demo clean-demo test chaos mutants fuzz up down bench bench-pieces bench-job bench-staging bench-pipeline bench-loading lint fmt install

# Dependencies are built once a machine: clones share a target folder where that is possible.
ifndef CARGO_TARGET_DIR
  ifeq ($(shell id -u),0)
    export CARGO_TARGET_DIR := /var/cache/sluice-target
  else
    export CARGO_TARGET_DIR := $(CURDIR)/target
  endif
endif
SLUICE := $(CARGO_TARGET_DIR)/debug/sluice
TOOLS := $(or $(SLUICE_TOOLS_DIR),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sluice)
DUCKDB_VERSION := $(shell sed -n 's/^DUCKDB_VERSION=//p' compose/versions.env)
DEMO_DIR ?= sluice-demo
ROUNDS ?= 200

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Build, then run the main job on embedded servers and verify the result
	@compose/native install --postgres-only
	cargo build --locked --bin sluice
	$(SLUICE) demo --folder $(DEMO_DIR) $(DEMO_ARGS)

clean-demo: ## Remove what `make demo` left
	rm -rf $(DEMO_DIR)

test: ## Run every test, on real Kafka, versitygw and PostgreSQL
	@$(MAKE) --no-print-directory install
	SLUICE_PROMTOOL=$(TOOLS)/monitoring/usr/bin/promtool SLUICE_AMTOOL=$(TOOLS)/monitoring/usr/bin/amtool \
	SLUICE_TEST_PYTHON=$(TOOLS)/duckdb-$(DUCKDB_VERSION)/bin/python3 \
	RUST_TEST_THREADS=$(or $(RUST_TEST_THREADS),4) \
	  cargo test --workspace --locked --features faults

chaos: ## Break ROUNDS things on real servers (ROUNDS=200 SEED=…), and replay in every way: nothing is lost or doubled
	@compose/native install
	CHAOS_ROUNDS=$(ROUNDS) CHAOS_SEED=$(SEED) \
	  cargo test --locked --features faults --test chaos -- --ignored --nocapture
	cargo test --locked --features faults --test it -- --ignored --exact --nocapture replay::matrix::every_cell

mutants: ## Take each guard away in turn: exit 1 where no test notices
	@compose/native install
	cargo test --locked --features faults --test it -- --ignored --exact --nocapture \
	  guards::mutants::every_guard_that_is_taken_away_is_noticed

fuzz: ## Fuzz the decoders and notifications, each target for FUZZ_SECONDS (600): exit 1 on a finding
	@tests/fuzz/run $(TARGETS)

up: ## Start the native stack (Kafka, S3 gateways, PostgreSQL) and print its settings
	@compose/native up
	@compose/native env

down: ## Stop the native stack
	@compose/native down

# laid out by a profile of the program at work, for processors of 2013 and later
bench-staging bench-pipeline bench-loading bench-pieces: export RUSTC_WORKSPACE_WRAPPER := $(CURDIR)/loadtest/benches/profile/rustc

bench: bench-staging bench-pipeline bench-loading ## Measure staging and loading beside others, and the whole pipeline on real servers

bench-pipeline: ## Measure `sluice run` from S3 and Kafka to `settled` (PIPELINE_ARGS="end_to_end --share 0.05")
	@compose/native install
	cargo build --locked --profile optimized -p sluice -p sluice-loadtest
	loadtest/benches/pipeline/run $(PIPELINE_ARGS)

bench-loading: ## Measure the loader beside a plain upsert and Spark's JDBC writer (LOADING_ARGS="--rows 200000 --no-spark")
	@compose/native install
	cargo build --locked --profile optimized --bench loading
	loadtest/benches/loading/run --program "$$(cargo build --locked --profile optimized --bench loading --message-format=json 2>/dev/null \
	  | sed -n 's/.*"executable":"\([^"]*loading-[^"]*\)".*/\1/p' | tail -n 1)" $(LOADING_ARGS)

bench-job: ## Run the demo over a million rows, then a replay beside a first reading, and print their speed
	cargo build --locked --bin sluice
	$(SLUICE) demo --folder $(DEMO_DIR) --rows 1000000
	@compose/native install
	cargo test --locked --features faults --test it -- --ignored --exact --nocapture \
	  replay::speed::a_replay_beside_the_first_reading

bench-pieces: ## Measure decoding, transforming and encoding alone, each on one thread
	cargo bench --locked --profile optimized --bench pieces -- $(PIECES_ARGS)

bench-staging: ## Measure `sluice stage` beside DuckDB, ClickHouse, Polars, PySpark and the floor (BENCH_ARGS="--bytes 256MiB")
	cargo build --locked --profile optimized -p sluice -p sluice-loadtest
	loadtest/benches/staging/run $(BENCH_ARGS)

install: ## Install the servers that the tests need
	@compose/native install
	@compose/native install --monitoring
	@compose/native install --reader

fmt: ## Format the code
	cargo fmt

lint: ## Check format, lints, licences and shell scripts
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked --features faults -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --config .deny.toml check; else echo "skipped: cargo-deny is not installed"; fi
	@if command -v shellcheck >/dev/null; then shellcheck -x compose/native compose/lib/*.sh .ci/run; else echo "skipped: shellcheck is not installed"; fi
