# What people run and what CI runs are the same commands; `make help` lists them.

.DEFAULT_GOAL := help
RIG = exec "$${CARGO_TARGET_DIR:-target}/$(if $(SHORT),debug,rig)/faults" run --faults "$(FAULTS)" --seed "$(or $(SEED),1)" $(if $(SECONDS),--seconds "$(SECONDS)")
.PHONY: help run cluster test check fuzz-api faults bugs nightly bench scale

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1@\2/p' Makefile | while IFS=@ read -r name what; do printf '%-14s %s\n' "$$name" "$$what"; done

run: ## start Bellhop alone: SQLite in a file, no Redis, nothing to set (ARGS="…" is passed on)
	@scripts/install.sh build
	@cargo build
	@exec "$${CARGO_TARGET_DIR:-target}/debug/bellhop" serve $(ARGS)

cluster: ## start Redis, PostgreSQL, three nodes and a sticky balancer to play with; Ctrl-C stops them all
	@scripts/cluster.sh || [ $$? -eq 130 ]

test: ## everything: the Rust suites and the official clients, on real Redis and PostgreSQL
	@scripts/install.sh build services clients
	@scripts/with-services.sh scripts/test.sh

check: ## format, layers, lints, documentation, licences
	@scripts/install.sh build
	@.ci/check.sh

fuzz-api: ## requests made up from the description of the API, 10 000 and more; SEED repeats a run
	@scripts/schemathesis.sh

bench: ## two release nodes under load, and what one publish costs (PEERS=1: beside others; REPS, USERS, SECS, STEPS); figures go to bench-results/
	@scripts/install.sh build services
	@scripts/bench.sh

scale: ## 1, 2 and 4 nodes with the users spread; more and more sockets on one node, and 60 000 on four (STEPS="nodes sockets", SIZES, SECS; after make bench)
	@scripts/scale.sh

faults: ## real nodes broken on purpose, and the table of what held (FAULTS="F1 F3", SEED, SECONDS, SCALE in percent; SHORT=1: the short set, on a debug build)
ifdef SHORT
	@scripts/install.sh build services
	@cargo build --quiet --locked -p bellhop -p faults
	@$(RIG) --bellhop "$${CARGO_BIN:-$${CARGO_TARGET_DIR:-target}/debug/bellhop}" --short --scale "$(or $(SCALE),25)" $(ARGS)
else
	@scripts/install.sh build services faults
	@echo "building the rig, optimised so that its load is not what is slow …" >&2
	@cargo build --quiet --locked --profile rig -p faults
	@[ -n "$${CARGO_BIN:-}" ] || cargo build --quiet --locked --release -p bellhop
	@$(RIG) --bellhop "$${CARGO_BIN:-$${CARGO_TARGET_DIR:-target}/release/bellhop}" --scale "$(or $(SCALE),100)" $(ARGS)
endif

bugs: ## known defects built in on purpose: each has to be found by a scenario (BUGS="no-feed", SCALE; ALL=1: the whole matrix)
	@scripts/bugs.sh

nightly: ## what takes longer than a gate may: all faults with several seeds, a long cocktail, the matrix of defects, long histories (SEED, SEEDS)
	@scripts/nightly.sh
