// Package examples carries the demonstrations and their workload, so that
// `ccrun-sim demo` needs no checkout.
package examples

import "embed"

// Files are the demonstrations, and the folder of their workload.
//
//go:embed demo.sh memory.sh setup.sh shop
var Files embed.FS
