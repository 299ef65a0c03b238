//go:build !amd64

package machine

func hostCBit() uint { return 0 }
