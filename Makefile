# Two commands: `make demo` shows Potluck working on this machine, `make test` checks everything.
# The long runs are commands of their own; each ends with one line that sums up and fails when a figure is missed.

CARGO ?= cargo
# The harness runs as root or as an ordinary user; nodes and builds always as an ordinary one.
LAB = $(or $(CARGO_TARGET_DIR),target)/release
# The programs, and of the harness only what a command asks for: linking takes half a minute each.
RELEASE = $(CARGO) build --release --locked --bin potluck --bin potluck-node --bin potluck-runner
HARNESS = $(RELEASE) --bin lab-worker --bin

.PHONY: help install-deps install-desktop build ui package demo test check identity bench faults attacks peers reclaim ui-test tray-test tray-idle
.PHONY: fuzz fuzz-program damage membership-sim
.PHONY: screenshots sentence clean-root clean-lab

help:
	@echo 'make demo      a submitter and three workers here build zstd and abseil; every object is compared'
	@echo 'make test      format, lints, all tests, the tray app, damage, identity with 120 files (under 45 minutes)'
	@echo 'make identity  every file of six projects, gcc and clang, all modes, header fuzzing'
	@echo 'make bench     what a submitter pays for each compile'
	@echo 'make faults    kills, stops, cut cables, full disks, bad input'
	@echo 'make attacks   jobs and peers that try to break out'
	@echo 'make fuzz      inputs that nobody wrote, for everything that reads bytes of others (ARGS: seconds each, targets)'
	@echo 'make damage    ruined state files, and nodes that are killed 500 times during builds (ARGS: --kills 5000)'
	@echo 'make membership-sim  the team'\''s statements under everything that networks and dishonest members do'
	@echo 'make peers     five nodes that find, lose and remove each other (needs root)'
	@echo 'make reclaim   how soon a PC is its owner'\''s again, and what its owner feels of foreign jobs (needs root)'
	@echo 'make ui-test   the window in a real browser, against a simulated node and against real ones that compile'
	@echo 'make screenshots  every view, light and dark, into ui/screenshots'
	@echo 'make tray-test the tray app on a display and a session bus of its own'
	@echo 'make tray-idle what the tray app and a node cost in five minutes in which nobody uses them'
	@echo 'make sentence  the whole product: packages in clean Debian roots, a team by clicks, a build, a key press (needs root)'
	@echo 'make clean-root  both commands on a fresh clone in a clean Debian root (needs root)'
	@echo 'make build     the programs, in $(LAB)'
	@echo 'make package   Debian packages, installed, used and removed in a clean Debian root (the check needs root)'

install-deps:
	@installers/deps.sh

install-desktop:
	@installers/deps.sh build tests desktop

# The page that window and browser show.
ui:
	@installers/ui.sh run --silent build

build:
	@installers/deps.sh build
	$(RELEASE)

# The tray app needs GTK, and the page that it shows needs node: where they are not to be had, ARGS='--only node'.
TRAY = $(and $(wildcard src-tauri/Cargo.toml),$(if $(filter node,$(ARGS)),,yes))
package: build
	@installers/deps.sh package
	$(if $(TRAY),installers/deps.sh desktop && installers/ui.sh run --silent build)
	$(if $(TRAY),$(CARGO) build --release --locked -p potluck-tray)
	@installers/package.sh $(or $(ARGS),$(if $(TRAY),,--only node))
	@installers/check-package.sh

demo: install-deps
	$(HARNESS) demo
	@$(LAB)/demo

test: check
	@installers/ui.sh run --silent check
	@installers/ui.sh test
	$(HARNESS) identity --bin damage
	# Quiet: of thousands of lines those that tell of a failure would be lost.
	$(CARGO) test --locked --no-fail-fast --quiet
	$(MAKE) tray-test
	$(LAB)/damage --short --kills 20 --seed 7
	# A fixed seed and no Boost here: the first contact with Boost.MPL takes reruns whose number depends on timing.
	# `make identity` runs everything, with a new seed each time.
	$(LAB)/identity --files 120 --sample 1 --rotate --fuzz 20 --seed 7 --workloads zstd,git,curl,sqlite3,abseil

check: install-desktop ui
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) clippy --all-targets --locked -p potluck-tray -- -D warnings
	$(CARGO) clippy --all-targets --locked -p potluck-fuzz --features libfuzzer -- -D warnings

identity: install-deps
	$(HARNESS) identity
	$(LAB)/identity --fuzz 500

bench: install-deps
	$(HARNESS) bench
	$(LAB)/bench

faults: install-deps
	$(HARNESS) faults
	$(LAB)/faults

attacks: install-deps
	$(HARNESS) attacks
	$(LAB)/attacks

# What libFuzzer needs of the compiler, by stable options, as `cargo fuzz --sanitizer none` has them. A target of its own
# (--target) keeps them from build scripts, and a folder of its own from every other build.
COVERAGE = -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
COVERAGE += -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
COVERAGE += -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
HOST = $(shell rustc -vV | sed -n 's/^host: //p')
FUZZ_DIR = $(or $(CARGO_TARGET_DIR),target)/fuzz
fuzz-program: install-deps
	RUSTFLAGS='$(COVERAGE)' $(CARGO) build --locked --profile fuzz --target $(HOST) --target-dir $(FUZZ_DIR) \
		-p potluck-fuzz --features libfuzzer --bin fuzz-target

# ARGS: seconds for each target (30), then names of targets: make fuzz ARGS='600 manifest team'.
fuzz: fuzz-program
	$(CARGO) build --locked -p potluck-fuzz --bin fuzz
	@POTLUCK_FUZZ_PROGRAM=$(abspath $(FUZZ_DIR))/$(HOST)/fuzz/fuzz-target $(or $(CARGO_TARGET_DIR),target)/debug/fuzz $(ARGS)

# ARGS: --kills 5000 for a night, --parts files, --only node.log, --seed N to see it again.
damage: install-deps
	$(HARNESS) damage
	$(LAB)/damage $(ARGS)

# ARGS: --seeds N, --nodes N, --seed N for one that found something.
membership-sim: install-deps
	$(CARGO) build --release --locked --bin membership-sim
	$(LAB)/membership-sim $(ARGS)

peers: install-deps
	$(HARNESS) peers
	$(LAB)/peers

# Nodes that look at a screen: the tray app's part of the node.
reclaim: install-desktop
	$(HARNESS) reclaim --features potluck-node/desktop
	$(LAB)/reclaim $(ARGS)

# The nodes look at a screen, as those of `reclaim` do. ARGS: --project=real, or web, or app; a criterion's number.
ui-test: install-desktop ui
	$(RELEASE) --features potluck-node/desktop
	@installers/ui.sh run --silent check
	@installers/ui.sh test
	@POTLUCK_BIN=$(abspath $(LAB)) installers/ui.sh run --silent e2e -- $(ARGS)

screenshots: install-desktop build ui
	@POTLUCK_BIN=$(abspath $(LAB)) installers/ui.sh run --silent screenshots -- $(ARGS)

TRAY_BINS = --bin potluck-tray --bin potluck-node --bin potluck-runner --bin tray
# The debug build: what is tested is what the app does, and an optimised one takes half an hour.
tray-test: install-desktop ui
	@icons/render.sh --check
	$(CARGO) build --locked -p potluck-tray -p potluck-node -p potluck-runner -p potluck-tests $(TRAY_BINS)
	$(or $(CARGO_TARGET_DIR),target)/debug/tray $(ARGS)

# Memory and CPU are those of the release build.
tray-idle: install-desktop ui
	$(CARGO) build --release --locked -p potluck-tray -p potluck-node -p potluck-runner -p potluck-tests $(TRAY_BINS)
	$(LAB)/tray --idle 300 $(ARGS)

# The real packages, so the release builds. ARGS: --hold leaves the PCs there when something goes wrong.
sentence: install-deps
	@installers/deps.sh desktop package
	installers/ui.sh run --silent build
	$(RELEASE) --bin sentence
	$(CARGO) build --release --locked -p potluck-tray
	@installers/package.sh
	$(LAB)/sentence $(ARGS)

# ARGS: other commands than the two, each in quotes.
clean-root:
	@tests/clean-root.sh $(ARGS)

clean-lab:
	rm -rf /var/tmp/potluck-lab-$$(id -u) /var/tmp/potluck-lab-54321
