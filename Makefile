# Two commands: `make run` brings the example deployment up, `make test` runs everything.
.PHONY: run test bench tools clean

DEPLOYMENT ?= deployment

run:
	cargo build --locked
	@test -f $(DEPLOYMENT)/topology.toml || target/debug/tandem init $(DEPLOYMENT)
	target/debug/tandem up $(DEPLOYMENT)

test: tools
	cargo xtask ci

bench: tools
	cargo build --locked
	bench/run.sh

# What the tests and the benchmark need besides Rust: phones, a browser, capture, valgrind, namespaces. Debian
# packages by name, and JsSIP for the browser by npm.
tools:
	./tools/install.sh

clean:
	cargo clean
