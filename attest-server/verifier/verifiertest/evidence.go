package verifiertest

import (
	"encoding/hex"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"

	"github.com/google/go-sev-guest/abi"
)

// ReadFile is the file at path.
func ReadFile(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Unhex decodes s.
func Unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// CertTable is a GHCB certificate table with one VCEK or VLEK.
func CertTable(guid string, der []byte) []byte {
	t := abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(guid), RawCert: der}}}
	return t.Marshal()
}

// Generic is v as JSON decodes it.
func Generic(t testing.TB, v any) map[string]any {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// Leaves calls f for every value below v: its path, the value and how to set
// it.
func Leaves(path string, v any, f func(path string, v any, set func(any))) {
	visit := func(path string, x any, set func(any)) {
		switch x.(type) {
		case map[string]any, []any:
			Leaves(path, x, f)
		default:
			f(path, x, set)
		}
	}
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			visit(path+"."+k, v[k], func(y any) { v[k] = y })
		}
	case []any:
		for i, x := range v {
			visit(path+"[]", x, func(y any) { v[i] = y })
		}
	}
}
