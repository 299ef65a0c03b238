//go:build remote && containers_image_openpgp && exclude_graphdriver_btrfs

// Package tags is empty. Packages that link containers/image or Podman import
// it, because without the build tags these need, only its directory's name is
// what `go build` and `go vet` then print, in place of headers of libraries
// that nobody should install.
package tags
