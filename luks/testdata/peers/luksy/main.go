// AES-256-XTS by containers/luksy, for BenchmarkXTSPeers: reads a number of
// 4096-byte sectors a line, encrypts as many through its EncryptWriter, and
// says how many nanoseconds of CPU time that took.
package main

import (
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/containers/luksy"
)

func cpu() int64 {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return r.Utime.Nano() + r.Stime.Nano()
}

func main() {
	_, encrypt, sector, err := luksy.EncryptV2([]string{"x"}, "", 4096)
	if err != nil {
		panic(err)
	}
	w := luksy.EncryptWriter(encrypt, discard{}, sector)
	buf := make([]byte, 4096)
	for {
		var n int64
		if _, err := fmt.Scan(&n); err == io.EOF {
			return
		} else if err != nil {
			panic(err)
		}
		start := cpu()
		for range n {
			if _, err := w.Write(buf); err != nil {
				panic(err)
			}
		}
		fmt.Fprintln(os.Stdout, cpu()-start)
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }
