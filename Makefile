# Two commands: `make demo` shows Potluck working on this machine, `make test` checks everything.
# The long runs are commands of their own; each ends with one line that sums up and fails when a figure is missed.

CARGO ?= cargo
# The harness runs as root or as an ordinary user; nodes and builds always as an ordinary one.
LAB = $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: help install-deps build package demo test check identity bench faults attacks peers tray-test sentence clean-root clean-lab

help:
	@echo 'make demo      a submitter and three workers here build zstd and abseil; every object is compared'
	@echo 'make test      format, lints, all tests, identity with 120 files (under 30 minutes)'
	@echo 'make identity  every file of six projects, gcc and clang, all modes, header fuzzing'
	@echo 'make bench     what a submitter pays for each compile'
	@echo 'make faults    kills, stops, cut cables, full disks, bad input'
	@echo 'make attacks   jobs and peers that try to break out'
	@echo 'make peers     five nodes that find, lose and remove each other (needs root)'
	@echo 'make tray-test the tray app on a display and a session bus of its own'
	@echo 'make sentence  the whole product: packages in clean Debian roots, a team by clicks, a build, a key press (needs root)'
	@echo 'make clean-root  both commands on a fresh clone in a clean Debian root (needs root)'
	@echo 'make build     the programs, in $(LAB)'
	@echo 'make package   Debian packages, installed, used and removed in a clean Debian root (the check needs root)'

install-deps:
	@installers/deps.sh

build:
	@installers/deps.sh build
	$(CARGO) build --release --locked

# The tray app needs GTK, and the page that it shows needs node: where they are not to be had, ARGS='--only node'.
TRAY = $(and $(wildcard src-tauri/Cargo.toml),$(if $(filter node,$(ARGS)),,yes))
package: build
	@installers/deps.sh package
	$(if $(TRAY),installers/ui.sh run --silent build)
	$(if $(TRAY),$(CARGO) build --release --locked -p potluck-tray)
	@installers/package.sh $(or $(ARGS),$(if $(TRAY),,--only node))
	@installers/check-package.sh

demo: install-deps build
	@$(LAB)/demo

test: check
	$(CARGO) build --release --locked
	$(CARGO) test --locked
	# A fixed seed and no Boost here: the first contact with Boost.MPL takes reruns whose number depends on timing.
	# `make identity` runs everything, with a new seed each time.
	$(LAB)/identity --files 120 --sample 1 --rotate --fuzz 20 --seed 7 --workloads zstd,git,curl,sqlite3,abseil

check: install-deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

identity: install-deps build
	$(LAB)/identity --fuzz 500

bench: install-deps build
	$(LAB)/bench

faults: install-deps build
	$(LAB)/faults

attacks: install-deps build
	$(LAB)/attacks

peers: install-deps build
	$(LAB)/peers
# The debug build: what is tested is what the app does, and an optimised one takes half an hour.
tray-test:
	@installers/deps.sh desktop
	@icons/render.sh --check
	$(CARGO) build --locked -p potluck-tray -p potluck-node -p potluck-runner -p potluck-tests --bins
	$(or $(CARGO_TARGET_DIR),target)/debug/tray $(ARGS)

# The real packages, so the release builds. ARGS: --hold leaves the PCs there when something goes wrong.
sentence: install-deps
	@installers/deps.sh desktop package
	installers/ui.sh run --silent build
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked -p potluck-tray
	@installers/package.sh
	$(LAB)/sentence $(ARGS)

# ARGS: other commands than the two, each in quotes.
clean-root:
	@tests/clean-root.sh $(ARGS)

clean-lab:
	rm -rf /var/tmp/potluck-lab-$$(id -u) /var/tmp/potluck-lab-54321
