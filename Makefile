# ccrun: see README.md. Every target works from a bare Debian 12 machine.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
GO      ?= go
PREFIX  ?= /usr/local
TAGS    := remote containers_image_openpgp exclude_graphdriver_btrfs
BINS    := ccrun-init ccrun attest-server ccrun-sim
LDFLAGS := -s -w
export CGO_ENABLED := 0
export GOFLAGS += -trimpath -buildvcs=auto

.PHONY: build
build: $(addprefix bin/,$(BINS))

bin/%: FORCE
	$(GO) build -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o $@ ./cmd/$*

.PHONY: FORCE
FORCE:
