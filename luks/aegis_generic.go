//go:build !amd64 || purego

package luks

// fastAEGIS is empty where there is no assembly.
type fastAEGIS struct{}

func (fastAEGIS) init() {}

func (fastAEGIS) absorb(*aegisState, []byte) bool { return false }

func (fastAEGIS) encrypt(*aegisState, []byte) bool { return false }

func (fastAEGIS) decrypt(*aegisState, []byte) bool { return false }
