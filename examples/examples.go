// Package examples carries the demonstration and its workload, so that
// `ccrun-sim demo` needs no checkout.
package examples

import "embed"

// Files are demo.sh and the folder of each example.
//
//go:embed demo.sh shop
var Files embed.FS
