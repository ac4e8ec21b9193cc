# make check is what CI runs beside the tests; make soak is for a long night.

GO    ?= go
LINT   = $(GO) tool -modfile=tools/go.mod
FUZZ  ?= 5s
COUNT ?= 3000

# Rooms whose tests are pure computation: cheap under the race detector.
PURE = ./packet/... ./field/... ./world/... ./trace/... ./link/... ./route/... ./socket/... \
       ./ipset/... ./xtables/... ./explore/...

.PHONY: all build test race check fmt vet lint generate fuzz faults soak bench vuln demos

all: build

build:
	$(GO) build ./...

# As root it first installs the tools that the tests ask.
test:
	tools/deps.sh
	tools/test.sh ./...

# With a C compiler at hand; without one the race detector can't be built.
race:
	tools/race.sh $(PURE)

# Fuzzing finds all targets by itself, FUZZ for each; make soak gives each a minute.
check: fmt vet lint generate race fuzz

fmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$out" ] || { echo "not gofmt'ed: $$out"; exit 1; }

vet:
	$(GO) vet ./...

lint:
	$(LINT) golangci-lint run ./...

# What is generated must be what stands there.
generate:
	tools/generate.sh

fuzz:
	tools/fuzz.sh $(FUZZ)

# Every fault that is seeded into the engine must be found by the kernel's answers.
faults:
	HOOKPATH_FAULTS=1000 tools/test.sh -count=1 -timeout 4h -run TestFaults ./internal/kernel/compare

# Large counts: random scenarios against this machine's kernel, every seeded
# fault, and long fuzzing.
soak:
	HOOKPATH_SOAK=$(COUNT) tools/test.sh -count=1 -timeout 10h ./...
	tools/fuzz.sh 60s

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./...

# Needs its database from the network, so CI leaves it out.
vuln:
	$(GO) run golang.org/x/vuln/cmd/govulncheck@latest ./...

# Lay the demo hosts out in this machine's kernel and take their snapshots again.
demos:
	tools/demos/all.sh
