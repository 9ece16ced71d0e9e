# What a person types. Every target does its own set-up and says which Debian packages it installs.
#
#   make demo                    the whole gateway with a simulated plant and a broker: no hardware needed
#   make test                    format, lints, every test (this is what .ci/run runs)
#   make lint                    only format and lints
#   make deb [ARCH=arm64|armhf]  the Debian package, in dist/
#   make test-deb                installs it under a booted systemd, in containers of Debian 12 and 13 (as root)
#   make dist                    the source archive with all crates inside, for Yocto, in dist/
#   make release                 all of deb (three architectures), dist and audit, and the Yocto recipe: before each release
#   make audit                   licences, banned crates, sources, known advisories
#   make bench                   figures of speed, memory, bytes on disk and a 72 h outage (as root, for the loop mount)
#   make crash                   kills and cuts by the thousand; the table in tests/README.md (as root, for the loop mount)
#   make fuzz [SECONDS=60]       arbitrary bytes for all that reads bytes, so long for each target; tests/fuzz
#   make setup                   the packages of make test, nothing else

ARCH ?= $(shell dpkg --print-architecture)
STAGE := packaging/stage.sh
SCRIPTS := .ci/run $(wildcard packaging/*.sh) tests/fuzz/fuzz.sh
BUILD_NEEDS := gcc libc6-dev pkg-config libsystemd-dev
TEST_NEEDS := $(BUILD_NEEDS) python3 python3-jsonschema python3-prometheus-client mosquitto mosquitto-clients libmodbus-dev socat iproute2 strace e2fsprogs chromium chromium-driver openssl
# Most tests wait: for a time-out, a broker, a kill. Threads that wait cost no processor.
export RUST_TEST_THREADS ?= $(shell expr 3 '*' $$(nproc))
LINT_NEEDS := $(BUILD_NEEDS) shellcheck systemd git jq

.PHONY: help demo test lint setup deb test-deb dist release audit bench crash fuzz
help:
	@sed -n 's/^#   //p' Makefile

demo:
	@packaging/needs.sh $(BUILD_NEEDS) mosquitto-clients
	@packaging/rust.sh
	cargo run --package fieldspool --features local-broker -- demo

test: setup lint
	@$(STAGE) "build" cargo test --quiet --workspace --all-features --no-run
	@$(STAGE) "tests" cargo test --quiet --workspace --all-features

lint:
	@packaging/needs.sh $(LINT_NEEDS)
	@packaging/rust.sh rustfmt clippy
	@$(STAGE) "format" cargo fmt --all --check
	@$(STAGE) "format of the fuzz targets" cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
	@$(STAGE) "shell scripts" shellcheck $(SCRIPTS)
	@$(STAGE) "shipped unit" packaging/check-unit.sh
	@$(STAGE) "lints" cargo clippy --quiet --workspace --all-targets --all-features -- -D warnings
	@$(STAGE) "release, without building" packaging/check-release.sh

setup:
	@packaging/needs.sh $(TEST_NEEDS)
	@packaging/rust.sh rustfmt clippy

deb:
	@packaging/deb.sh $(ARCH)

test-deb:
	@packaging/test-deb.sh

dist:
	@packaging/dist.sh

release:
	@packaging/release.sh

audit:
	@packaging/audit.sh

bench:
	@packaging/needs.sh $(TEST_NEEDS)
	@packaging/rust.sh
	cargo bench --quiet --package fieldspool --bench bench

crash:
	@packaging/needs.sh $(TEST_NEEDS)
	@packaging/rust.sh
	@$(STAGE) "simulated cuts" env CUTS=150000 RECORD=1 cargo test --quiet --workspace --all-features --test power_cuts
	@$(STAGE) "real kills and cuts" cargo test --quiet --package fieldspool --all-features --bench cuts
	@$(STAGE) "damaged spools" env FIELDSPOOL_IMAGES=1000 cargo test --quiet --package fieldspool --all-features --test damage images -- --nocapture

# Not `SECONDS` in the script: to bash that is a clock.
fuzz:
	@packaging/needs.sh $(BUILD_NEEDS) g++
	@packaging/rust.sh
	@SECONDS_EACH=$(or $(SECONDS),60) tests/fuzz/fuzz.sh
