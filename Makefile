# What a person does with this repository. `make` alone lists it.

CARGO ?= cargo
RUNS ?= 10
SEEDS ?= 1000
FIRST ?= 1
TARGET ?= requests
SECONDS ?= 180
IDLE_SECONDS ?= 60
BUSY_MINUTES ?= 10
ENGINE ?= redis
# Tests start whole groups of processes; more at a time than this and they starve each other on a small machine.
TEST_THREADS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup setup-tests setup-bench build demo test check bench-failover bench-idle bench-proxy simulate chaos fuzz clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing (Debian 12: redis-server, consul)
	@scripts/setup

setup-tests:
	@scripts/setup tests

setup-bench:
	@scripts/setup bench

build: setup ## build target/release/understudy
	$(CARGO) build --release --locked

demo: ## a group on this machine: kill its master, kill a node, switch over; see what a client notices. ENGINE=redis|postgres|mariadb
	@scripts/setup $(ENGINE)
	@$(CARGO) build --release --locked -q -p understudy
	@target/release/understudy demo --engine $(ENGINE)

test: setup-tests ## all tests, with real Consul and real Redis
	@$(CARGO) build --workspace --bins --locked -q
	$(CARGO) test --workspace --locked -q --doc
	$(CARGO) test --workspace --locked --all-targets -- --test-threads=$(TEST_THREADS)

check: ## formatting, lints, and the dependencies' licences when cargo-deny is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -q -- -D warnings
	@if command -v cargo-deny >/dev/null 2>&1; then \
		$(CARGO) deny --locked check bans licenses sources; \
	else \
		echo "cargo-deny is not installed: the dependencies' licences were not checked" >&2; \
	fi

bench-failover: setup-bench ## write outages, ENGINE=redis|postgres|mariadb, in turn with Redis Sentinel or Patroni; RUNS=10 PEER_RUNS=10 FAULTS=kill,... JSON on stdout, a table on stderr
	@$(CARGO) build --release --locked -q -p understudy -p understudy-tests
	@$(CARGO) run --release --locked -q -p understudy-tests --bin bench-failover -- --engine $(ENGINE) --runs $(RUNS) \
		$(if $(PEER_RUNS),--peer-runs $(PEER_RUNS)) $(if $(FAULTS),--faults $(FAULTS))

bench-idle: setup ## cost of an idle group, calm on a busy machine, a killed master's return; IDLE_SECONDS=60 BUSY_MINUTES=10 RUNS=10
	@$(CARGO) build --release --locked -q -p understudy -p understudy-tests
	@$(CARGO) run --release --locked -q -p understudy-tests --bin bench-idle -- --idle $(IDLE_SECONDS) --busy $(BUSY_MINUTES)
	@$(CARGO) run --release --locked -q -p understudy-tests --bin bench-rejoin -- --runs $(RUNS)

# In memory: a disk that is busy with the append-only file would be measured instead of the proxies.
bench-proxy: export TMPDIR := $(if $(TMPDIR),$(TMPDIR),$(if $(wildcard /dev/shm),/dev/shm,/tmp))
bench-proxy: setup-bench ## proxies in turn, by redis-benchmark, pgbench or sysbench; ENGINE=redis|postgres|mariadb ROUNDS=5, CASES=a,b, MODES=a,b. JSON on stdout, a table on stderr
	@$(CARGO) build --release --locked -q -p understudy
	@$(CARGO) run --release --locked -q -p understudy-tests --bin bench-proxy -- --engine $(ENGINE) --rounds $(or $(ROUNDS),5) \
		$(if $(CASES),--cases $(CASES)) $(if $(MODES),--modes $(MODES))

simulate: ## random faults on virtual time, on every core; SEEDS=1000 from FIRST=1, or SEED=n to replay one; ENGINE=redis|postgres|mariadb, or each seed's
	@$(CARGO) run --release --locked -q -p understudy-tests --bin simulate -- \
		$(if $(SEED),--seed $(SEED),--first $(FIRST) --seeds $(SEEDS)) $(if $(filter command environment,$(origin ENGINE)),--engine $(ENGINE))

chaos: setup-tests ## random faults upon real processes, as root; ENGINE=redis|postgres|mariadb RUNS=10 SEED=1 ROUNDS=12 FAULTS=kill-database,split,...
	@$(CARGO) build --release --locked -q -p understudy -p understudy-tests
	@target/release/chaos --engine $(ENGINE) --runs $(RUNS) $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) \
		$(if $(FAULTS),--faults $(FAULTS)) $(if $(TCP),--tcp)

fuzz: ## random bytes into a parser; TARGET=requests|replies|postgres|info|lsn|gtid|messages|documents|config SECONDS=180
	@command -v cargo-fuzz >/dev/null 2>&1 || { echo "cargo-fuzz is not installed: cargo install cargo-fuzz" >&2; exit 1; }
	@mkdir -p fuzz/corpus/$(TARGET)
	@cd fuzz && RUSTC_BOOTSTRAP=1 nice -n 10 $(CARGO) fuzz run --sanitizer none $(TARGET) corpus/$(TARGET) seeds/$(TARGET) -- \
		-max_total_time=$(SECONDS) -timeout=10 -rss_limit_mb=1024

clean: ## remove what was built
	$(CARGO) clean
