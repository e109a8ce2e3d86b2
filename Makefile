# What one types here. Every target makes what it needs, system packages included (as root, or with sudo that asks for no
# password; otherwise it says what an administrator has to install).

CARGO ?= cargo
# The warnings of compiler, lints and documentation are errors.
STRICT = -D warnings

.PHONY: help setup versions fetch build demo test test-all bench man check format lint deny doc
# Cargo uses all cores itself.
.NOTPARALLEL:

help:
	@echo 'make demo      a restore, a crash and the way back, on private servers (half a minute)'
	@echo 'make test      all tests'
	@echo 'make test-all  all tests, and the long matrices in full'
	@echo 'make bench     what the journal costs, how much memory a restore needs, how fast the program starts'
	@echo 'make man       the man pages, from docs/manual/ and the definitions in the code'
	@echo 'make check     formatting, lints, licences, documentation'
	@echo 'make setup     what the others need from the system'
	@echo 'make versions  other versions of PostgreSQL, in target/, for the tests'

setup:
	@command -v $(CARGO) >/dev/null || { echo 'setup: there is no cargo: install Rust 1.89 or newer' >&2; exit 1; }
	@tests/stage/install.sh

# Unpacked below target/, once.
versions: setup
	@tests/stage/versions.sh 16 17 18

fetch: setup
	$(CARGO) fetch --locked

build: fetch
	$(CARGO) build --locked --bins --examples

demo: build
	$(CARGO) run --locked --quiet --example demo

test: build versions
	$(CARGO) test --locked

test-all: build versions
	@tests/stage/versions.sh 13 14
	PG_STAGING_TEST_ALL=1 $(CARGO) test --locked

bench: fetch
	$(CARGO) bench --locked --benches

man: build
	PG_STAGING_WRITE_MANUAL=1 $(CARGO) test --locked --test all -- manual::the_man_pages

check: format lint deny doc

format: setup
	$(CARGO) fmt --all --check

lint: fetch
	$(CARGO) clippy --locked --all-targets -- $(STRICT)

# Advisories are looked at where the database is already; it comes from the network, which a build has no need of. See
# deny.toml for those that are known.
deny: fetch
	@command -v cargo-deny >/dev/null || $(CARGO) install cargo-deny --locked --quiet
	$(CARGO) deny --offline check --hide-inclusion-graph bans licenses sources
	@if [ -d "$${CARGO_HOME:-$$HOME/.cargo}/advisory-dbs" ]; then \
		$(CARGO) deny --offline check --hide-inclusion-graph advisories; \
	else \
		echo 'advisories were not looked at: there is no local database (cargo deny fetch makes one)'; \
	fi

doc: fetch
	RUSTDOCFLAGS='$(STRICT)' $(CARGO) doc --locked --no-deps
