//go:build !amd64 || purego

package luks

// fastBlocks is empty where there is no assembly: crypto/aes does the work.
type fastBlocks struct{}

func (*fastBlocks) init([]byte) {}

func (*fastBlocks) tweakBytes(n int) int { return n }

func (*fastBlocks) encrypt(b, t []byte) bool { return false }
