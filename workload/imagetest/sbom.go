package imagetest

import (
	"encoding/json"
	"testing"
)

// PURLs are the package URLs in an SBOM.
func PURLs(t *testing.T, b []byte) (purls []string) {
	t.Helper()
	var s struct {
		Packages []struct {
			ExternalRefs []struct{ ReferenceLocator string }
		}
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Packages[1:] {
		purls = append(purls, p.ExternalRefs[0].ReferenceLocator)
	}
	return purls
}
