# ccrun. Every target works from a bare Debian 12 machine with Go 1.26: what
# is missing is installed by `make deps`, which the others call.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

GO      ?= go
PREFIX  ?= /usr/local
DESTDIR ?=
TAGS    := remote,containers_image_openpgp,exclude_graphdriver_btrfs
LDFLAGS := -s -w
BINS    := ccrun-init ccrun attest-server ccrun-sim
FUZZTIME ?= 30s
# The kernel the simulator boots; any Debian cloud kernel will do.
CACHE   ?= .cache
SIMFW   := $(CACHE)/firmware

export CGO_ENABLED := 0
# Without build tags containers/image wants gpgme and cgo.
export GOFLAGS := -trimpath -buildvcs=auto -tags=$(TAGS)

.PHONY: build demo test test-unit test-mutation test-race test-e2e status mutation soak bench fuzz lint release install deps test-deps firmware rig clean FORCE

build: $(addprefix bin/,$(BINS))

# The agent speaks HTTP/1.1 alone; without HTTP/2 it is 5 % smaller, and without
# functions inside others 13 % (no slower in what a boot takes), all of it
# measured by the processor at each start.
bin/ccrun-init: export GOFLAGS := -trimpath -buildvcs=auto -gcflags=all=-l -tags=$(TAGS),nethttpomithttp2

bin/%: FORCE
	$(GO) build -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

FORCE:

# deps installs Debian packages, when any is missing.
deps:
	packaging/deps.sh

test-deps:
	packaging/deps.sh test

# The simulator's firmware, again if the program or the kernel is another: its
# kernel is booted once, which takes a while.
firmware: bin/ccrun-sim | deps
	cmd/ccrun-sim/kernel.sh $(CACHE)/kernel
	@sha256sum bin/ccrun-sim $(CACHE)/kernel/vmlinuz | cmp -s - $(SIMFW)/made-from || { set -x; \
	bin/ccrun-sim firmware --kernel $(CACHE)/kernel/vmlinuz --modules $(CACHE)/kernel/modules --output $(SIMFW); \
	sha256sum bin/ccrun-sim $(CACHE)/kernel/vmlinuz >$(SIMFW)/made-from; }

# The simulated platform's keys, and what podman-env.sh hands to the runtime.
SIMENV  = CCRUN_KRUN=$(abspath bin/ccrun) CCRUN_SIM=$(abspath bin/ccrun-sim) CCRUN_SIM_FIRMWARE=$(abspath $(SIMFW)) CCRUN_SIM_ROOT=$(abspath $(CACHE))/platform

demo: deps build firmware
	$(SIMENV) tests/podman-env.sh bin/ccrun-sim demo --bin bin --cache $(CACHE)

# test is everything: lint apart, what CI runs.
test: test-deps build firmware test-unit
	$(MAKE) -j2 test-mutation test-race
	$(MAKE) test-e2e

test-unit:
	CCRUN_LONG=1 $(GO) test -timeout 40m ./...

# Ten security conditions, chosen by the commit, are taken out of the program,
# each alone: its tests must notice. test-unit has seen that all still apply.
test-mutation:
	$(GO) run ./tests/mutation -some 10 -state $(CACHE)/mutation.json

# All of them, which takes an hour; stopped, it goes on where it was. The result
# is appended to docs/mutation.md.
mutation:
	nice -n 19 $(GO) run ./tests/mutation -record -state $(CACHE)/mutation.json

# The race detector needs cgo, and only packages that share memory need it.
test-race:
	CGO_ENABLED=1 $(GO) test -race -timeout 40m ./secret ./luks ./krun/guest ./krun/measure \
		$(addprefix ./attest-server/,. answer budget endorsements kbs release sample session store web witness)

# The rig: crun with its krun handler, a stand-in for libkrun, libkrunfw's own
# kernel, Podman and QEMU of Debian's next suite. And the corpus's layers.
rig: test-deps
	mkdir -p $(CACHE)
	flock -o $(CACHE)/rig.lock tests/rig/build.sh $(CACHE) >/dev/null
	flock -o $(CACHE)/rig.lock tests/corpus/build.sh $(CACHE) >/dev/null

test-e2e: build firmware rig
	$(SIMENV) CCRUN_E2E=1 CCRUN_BIN=$(abspath bin) GO=$(GO) tests/e2e.sh $(CACHE)

# How the last run of test-e2e ended, feature by feature, goes into docs/status.md.
status:
	$(GO) run ./tests/status $(CACHE)/e2e

# Heavy checks, hours of them: what was run, when, and how it ended is appended
# to docs/soak.md.
soak: test-deps build firmware rig
	$(SIMENV) CCRUN_E2E=1 CCRUN_BIN=$(abspath bin) CCRUN_RIG=$(abspath $(CACHE))/rig/krun CCRUN_LONG=soak tests/podman-env.sh tests/soak.sh

bench: build firmware rig
	packaging/deps.sh bench
	tests/bench.sh
	tests/bench-server.sh
	$(SIMENV) tests/podman-env.sh tests/bench-start.sh
	CCRUN_E2E=1 CCRUN_BENCH=1 CCRUN_BIN=$(abspath bin) CCRUN_RIG=$(abspath $(CACHE))/rig/krun $(SIMENV) go test -count=1 -v -run '^(TestReadThroughput|TestVolumeThroughput|TestWritableRoot|TestOVMFCost)$$' ./tests

fuzz:
	tests/fuzz.sh $(FUZZTIME)

lint:
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "run gofmt -w on the files above" >&2; exit 1; }
	@s=$$(git log -1 --format=%s 2>/dev/null || echo no: git); test $${#s} -le 60 && [[ $$s == ?*:\ ?* ]] || \
		{ echo "the last commit's subject is not 'pkg: imperative' in at most 60 characters: $$s" >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	CCRUN_LINT=1 $(GO) test -run NothingDead ./tests/house
	@$(GO) tool govulncheck -version >/dev/null 2>&1 && $(GO) tool govulncheck ./... || echo "govulncheck: database not reachable, skipped"

# Packages in dist/, signed if RELEASE_KEY names an SSH key; the same commit
# gives the same bytes.
release: build
	packaging/release.sh bin dist

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/libexec/ccrun
	install -m 0755 bin/ccrun bin/attest-server bin/ccrun-sim $(DESTDIR)$(PREFIX)/bin/
	install -m 0755 bin/ccrun-init $(DESTDIR)$(PREFIX)/libexec/ccrun/
	ln -sf ../../bin/ccrun $(DESTDIR)$(PREFIX)/libexec/ccrun/krun
	ln -sf ../../bin/ccrun-sim $(DESTDIR)$(PREFIX)/libexec/ccrun/krun-sim
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/share/doc/ccrun
	sed 's,/usr/bin/attest-server,$(PREFIX)/bin/attest-server,; s,/usr/local/bin/attest-server,$(PREFIX)/bin/attest-server,' \
		packaging/systemd/attest-server.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/attest-server.service
	install -m 0644 packaging/systemd/attest-server.socket $(DESTDIR)$(PREFIX)/lib/systemd/system/
	install -m 0644 packaging/systemd/attest-server.toml $(DESTDIR)$(PREFIX)/share/doc/ccrun/
	install -d $(DESTDIR)$(PREFIX)/share/doc/ccrun/attest-server.service.d
	install -m 0644 packaging/systemd/attest-server.service.d/*.conf $(DESTDIR)$(PREFIX)/share/doc/ccrun/attest-server.service.d/

	packaging/pages.sh bin bin/pages
	for page in bin/pages/man/*.gz; do section=$${page%.gz}; \
		install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${section##*.}/$${page##*/}"; done
	for p in ccrun ccrun-sim attest-server; do \
		install -D -m 0644 bin/pages/completion/$$p.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/$$p; \
		install -D -m 0644 bin/pages/completion/$$p.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_$$p; \
		install -D -m 0644 bin/pages/completion/$$p.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/$$p.fish; done
	install -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/ccrun/

clean:
	rm -rf bin dist $(CACHE)
