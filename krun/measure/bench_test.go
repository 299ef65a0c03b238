package measure

import (
	"crypto/sha512"
	"testing"
)

// BenchmarkLaunch measures a 32 MiB kernel; the ratio to BenchmarkSHA384, one
// pass over the same bytes, is what a release promises to be under 1.2.
func BenchmarkLaunch(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		l, err := Prepare(in)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := l.Digest(Libkrun116, Shape{4, 2048}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSHA384(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		_ = sha512.Sum384(in.Kernel)
	}
}

func BenchmarkRegions(b *testing.B) {
	in := benchInputs()
	b.SetBytes(int64(len(in.Kernel)))
	for b.Loop() {
		if _, err := Launch(Libkrun116, in, Shape{4, 2048}); err != nil {
			b.Fatal(err)
		}
	}
}

func benchInputs() Inputs {
	in := testInputs()
	in.Kernel, in.Initrd = noise(4, 32<<20), in.Initrd[:4096]
	return in
}
