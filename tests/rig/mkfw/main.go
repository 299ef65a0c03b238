// Command mkfw makes the rig's libkrunfw-sev.so.5 of the flat kernel that
// Debian's libkrunfw5 has, because Debian has no SEV variant: the same parts
// in the same places, with filler for qboot, which nothing executes here.
package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"github.com/ccrun/ccrun/krun/firmware"
)

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: mkfw KERNEL LOAD-ADDRESS OUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "mkfw:", err)
		os.Exit(1)
	}
}

func run(kernel, load, out string) error {
	k, err := os.ReadFile(kernel)
	if err != nil {
		return err
	}
	address, err := strconv.ParseUint(load, 0, 64)
	if err != nil {
		return err
	}
	b, err := firmware.FromParts(bytes.Repeat([]byte("qboot"), firmware.QBootBytes)[:firmware.QBootBytes], k, address, nil)
	if err != nil {
		return err
	}
	lib, err := firmware.BuildLibrary(b, make([]byte, 4096))
	if err != nil {
		return err
	}
	return firmware.WriteFile(out, lib, 0o755)
}
