# Frequent tasks. CI calls `check`, then `test`. Variables: UP (more arguments of `gaiola up`), TESTS (arguments of the
# test runner, such as a filter), SEED and SEEDS (of the simulation), TARGET and TIME (of the fuzzers, in seconds), BENCH (more arguments of
# bench/run), MINUTES (of the soak), PREFIX and DESTDIR (of `install`).

.PHONY: up test check sim fuzz e2e machines bench outside soak nightly deb install

# Finds a toolchain that rustup has just installed, and fixes the directory of binaries for the rules below.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CARGO_TARGET_DIR := $(CURDIR)/target

up:
	scripts/setup up
	scripts/build release
	target/release/gaiola up -f examples/guestbook/gaiola.toml $(UP)

test:
	scripts/setup test
	[ "$$(id -u)" != 0 ] || scripts/setup machines
	scripts/test $(TESTS)

check:
	scripts/check

sim:
	SEEDS=$${SEEDS:-10000} cargo test --release -p gaiola-sim -- --nocapture

fuzz:
	scripts/fuzz $(TARGET)

e2e:
	scripts/setup test
	scripts/build quick
	scripts/e2e

# Real Debian machines instead of the lab. As root.
machines:
	scripts/setup machines
	scripts/machines $(TESTS)

# What takes too long for each change, in under an hour: simulation, fuzzers, a soak, third-party clients, every drill.
nightly:
	$(MAKE) sim
	$(MAKE) fuzz TIME=30
	$(MAKE) soak MINUTES=10
	$(MAKE) outside
	$(MAKE) e2e

bench:
	cd bench && python3 -B -m unittest -q harness.test_verdict
	scripts/build release
	cargo build --locked --release -p gaiola-proxy --example relay
	bench/run $(BENCH)

outside:
	-scripts/setup outside
	scripts/build release
	scripts/outside $(TARGET)

soak:
	scripts/build release
	scripts/soak $(MINUTES)

# A Debian package, in target/debian.
deb:
	scripts/package deb

# Below PREFIX, /usr/local if it is not set.
install:
	PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/package install
