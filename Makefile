# make up      builds, and runs a cluster with a mount (Ctrl-C ends it)
# make test    installs what the tests need and runs them all
SHELL   := /bin/bash
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo unknown)
TAGS    := giouring
# giouring borrows a function of package syscall; Go's linker must be told to allow it.
LDFLAGS := -checklinkname=0
GOTEST  := go test -tags $(TAGS) -ldflags=$(LDFLAGS)
DIR     ?= /var/tmp/varve
MNT     ?= /mnt/varve
# Packages without real disks, sockets or mounts: cheap enough for the race detector in every run.
PURE    := . ./chunk ./inode ./status ./codec ./conf ./wire ./master/state ./master/image ./master/placement ./master/locks
TIME    ?= 30s

# How long test-ha torments the six-machine plan.
HA      ?= 30m

.PHONY: build up needs test test-ha test-race torture torture-all sim mutate fuzz lint bench clean

build:
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags='$(LDFLAGS) -s -w -X main.version=$(VERSION)' -o bin/varve ./cmd/varve

up: needs build
	bin/varve up --dir $(DIR) --mount $(MNT)

needs:
	@packaging/needs.sh

test: needs build lint
	$(GOTEST) -race -short $(PURE)
	$(GOTEST) -count=1 -timeout 12m ./... # the tests in test/ build the binary: Go cannot tell whether a cached result holds

test-race: needs build
	$(GOTEST) -race -timeout 25m ./...

# Cuts the power, breaks disks and lets them lie: every short sequence of changes with far more
# crash states than "make test", and random runs for TIME. A failure prints how to replay it.
torture:
	VARVE_TORTURE=$(TIME) GOGC=300 $(GOTEST) -count=1 -timeout 0 -v -run '^(TestCrashEverywhere|TestStorm)$$' ./segment

# Runs whole clusters in simulation, one from each seed. A failure prints how to replay it.
FROM    ?= 1
TO      ?= 2000
sim:
	VARVE_SIM_FROM=$(FROM) VARVE_SIM_TO=$(TO) GOGC=400 $(GOTEST) -count=1 -timeout 0 -v -run '^TestSeeds$$' ./test/sim

# Every sequence of three changes in all variants, some subsets of what is in flight at each
# moment, in PIECES parts; more subsets of them, for as long as one likes, is "make torture".
PIECES  ?= 12
torture-all:
	for i in $$(seq 0 $$(($(PIECES)-1))); do \
	  VARVE_PIECE=$$i/$(PIECES) GOGC=300 $(GOTEST) -count=1 -timeout 0 -v -run '^TestCrashEverywhere$$' ./segment || exit 1; \
	done

# Breaks the segment store, and what failover rests on, in many ways, one at a time: the tests
# must notice each. ONLY=ha- tries those about failover.
ONLY    ?=
mutate:
	go run ./test/mutate -only '$(ONLY)'

# Every fault of test/ha on the six-machine plan, again and again.
test-ha: needs build
	VARVE_HA=$(HA) $(GOTEST) -count=1 -v -timeout 24h -run TestLong ./test/ha

# Runs every fuzz target for TIME each.
fuzz:
	@for pkg in $$(go list ./...); do \
	  for target in $$($(GOTEST) -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$target"; $(GOTEST) -run '^$$' -fuzz "^$$target\$$" -fuzztime $(TIME) $$pkg || exit 1; \
	  done; \
	done

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'run gofmt -w on these files'; exit 1; }
	go vet ./...
	go vet -unsafeptr=false -tags $(TAGS) ./...

# The performance suite; BENCHMARKS.md tells what the figures mean.
bench: needs build
	bin/varve perf engine --dir $(DIR)-bench --duration 1s --rounds 5
	bin/varve perf segment --dir $(DIR)-bench --duration 1s --rounds 5 --size 512MiB
	bin/varve perf recovery --dir $(DIR)-bench --svg docs/bench/recovery.svg
	bin/varve perf stalls --dir $(DIR)-bench --size 2GiB --svg docs/bench/stalls.svg
	bin/varve perf cleaning --dir $(DIR)-bench --svg docs/bench/cleaning.svg
	bin/varve perf memory --dir $(DIR)-bench

clean:
	rm -rf bin
