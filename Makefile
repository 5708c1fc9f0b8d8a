# Two commands: `make demo` and `make test`. The others are parts of them, or longer runs of them.
# KUBECONFIG_EAST and KUBECONFIG_WEST, or KUBECONFIG: clusters to use instead of the sandbox's; see scenarios/README.md.
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.PHONY: demo demo-down test soak sim lint fuzz bench bench-repository bench-block sandbox sandbox-down install image setup crds

PREFIX ?= /usr/local

## The main job end to end on two real clusters, about 3 minutes after the builds. KEEP=1 leaves them running.
demo: setup
	cargo build --release --workspace --bin orlop --bin demo --bin sandbox
	$(if $(KUBECONFIG)$(KUBECONFIG_EAST),,target/release/sandbox build)
	target/release/demo up $(if $(KEEP),--keep)

## Ends what `make demo KEEP=1`, or one that was interrupted, has left: on given clusters too. Only ~/.cache/orlop stays.
demo-down:
	target/release/demo down

## All tests. What this machine cannot run is skipped with its reason and counted at the end; NO_SKIP=1 makes a skip a failure.
test: setup
	tools/test

## The program, and servers of block devices under load, are killed a hundred times at random points (KILLS=100), from a seed (SEED=number). `make test` kills
## them a few times.
soak: setup
	ORLOP_KILLS=$(or $(KILLS),100) $(if $(SEED),ORLOP_SEED=$(SEED)) cargo nextest run --workspace --locked --no-capture \
		-E '(package(orlop) and test(/^kills::|killed_or_replaced|killed_in_any_call/)) or (package(fuse) and test(/^restart::/))'

## The store of the volume engine crashes in a simulation, at any operation, and clusters of replicated volumes meet every fault, with many more seeds
## (SEEDS=10000) than in `make test`; and the model of their rules is gone through in every order of more events.
sim: setup
	ORLOP_SIM_SEEDS=$(or $(SEEDS),10000) cargo nextest run --workspace --locked --no-capture \
		-E '(package(volume) or package(replication)) and test(/^simulation::/)'
	cargo test --manifest-path model/Cargo.toml --target-dir target/model --locked -- --nocapture --include-ignored

## Formatting, clippy with the lints of Cargo.toml, licences and bans.
lint: setup
	cargo fmt --all --check
	cargo fmt --manifest-path model/Cargo.toml --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --manifest-path model/Cargo.toml --target-dir target/model --all-targets --locked -- -D warnings
	cargo deny --offline check bans licenses sources

## Each fuzz target for a minute: every parser, and restores out of hostile repositories.
fuzz:
	tools/setup g++
	tools/fuzz 60

## What is measured, for docs/benchmarks.md: the engine against restic (about half an hour), volumes against other block devices (about half an hour,
## as root), and the operator on a large cluster and with many applications.
bench: bench-repository bench-block
	cargo build --workspace
	target/debug/sandbox build
	cargo test --workspace --locked --bench capture --bench large_cluster --bench many_applications --bench random_access

## The engine alone. BENCH="--scale 0.1 --rounds 1" tries it on less. The tables are in target/bench.md, too.
bench-repository:
	@tools/setup restic postgresql e2fsprogs
	cargo build --release --workspace --bin orlop --bin bench
	target/release/bench run --report target/bench.md $(BENCH)

## Volumes as block devices alone. BENCH="--scale 0.1 --rounds 1 --only memory" tries a part of it on less. The tables are in target/bench-block.md, too.
bench-block:
	@tools/setup nbdkit btrfs-progs
	cargo build --release --workspace --bin bench-block
	target/release/bench-block run --report target/bench-block.md $(BENCH)

## The program into PREFIX/bin, with the links that make it a plug-in of kubectl.
install: setup
	cargo build --release --workspace --bin orlop
	tools/install target/release/orlop $(PREFIX)

## The image as an archive, target/orlop-image.tar, without a container engine. NAME=registry.example.com/orlop:0.1.0 gives it another name than the manifests have.
image: setup
	cargo build --release --workspace --bin orlop --bin sandbox
	deploy/image/build target/release/orlop target/orlop-image.tar $(NAME)

## A cluster of three nodes to try things on, and a kubectl with the plug-in; what it prints last is for your shell.
sandbox: setup
	cargo build --release --workspace --bin orlop --bin sandbox
	target/release/sandbox build
	tools/install target/release/orlop target/sandbox
	target/release/sandbox up lab
	@echo 'export PATH=$(CURDIR)/target/sandbox/bin:$(CURDIR)/target/release:$$PATH'

## Ends every cluster of the sandbox and removes its state; not those of the demo.
sandbox-down:
	target/release/sandbox down --wipe

## The CRDs in deploy/, anew from the types, and the plain manifests, anew from the chart.
crds: setup
	UPDATE_FILES=1 cargo nextest run --workspace -E 'package(api) or (package(orlop) and test(the_plain_manifests_are_what_the_chart_renders))'

setup:
	@tools/setup
