//go:build deps

// Keeps go.mod whole while the packages that import these are being written.
package main

import (
	_ "github.com/containers/image/v5/copy"
	_ "github.com/containers/image/v5/transports/alltransports"
	_ "github.com/containers/podman/v5/pkg/bindings"
	_ "github.com/containers/podman/v5/pkg/bindings/containers"
	_ "github.com/containers/podman/v5/pkg/bindings/images"
	_ "github.com/containers/podman/v5/pkg/specgen"
	_ "github.com/containers/storage"
	_ "github.com/google/go-sev-guest/verify"
	_ "github.com/google/go-sev-guest/validate"
	_ "github.com/google/go-tdx-guest/verify"
	_ "github.com/google/go-tdx-guest/validate"
	_ "github.com/urfave/cli/v2"
	_ "modernc.org/sqlite"
	_ "golang.org/x/crypto/argon2"
	_ "golang.org/x/crypto/xts"
	_ "golang.org/x/term"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/time/rate"
	_ "golang.org/x/sys/unix"
	_ "github.com/gowebpki/jcs"
	_ "github.com/rogpeppe/go-internal/testscript"
	_ "github.com/ulikunitz/xz"
	_ "filippo.io/age"
	_ "github.com/coreos/go-systemd/v22/daemon"
	_ "github.com/coreos/go-systemd/v22/activation"
	_ "github.com/klauspost/compress/gzip"
	_ "github.com/klauspost/compress/zstd"
	_ "github.com/vbauerster/mpb/v8"
	_ "github.com/google/uuid"
	_ "github.com/opencontainers/go-digest"
	_ "github.com/opencontainers/image-spec/specs-go/v1"
	_ "github.com/opencontainers/runtime-spec/specs-go"
	_ "github.com/moby/sys/user"
	_ "github.com/docker/go-units"
)

func main() {}
