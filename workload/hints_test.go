package workload

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// TestRegistryHints: who reads from or writes to a registry that is not trusted
// learns which flag makes it so.
func TestRegistryHints(t *testing.T) {
	t.Parallel()
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	private := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(private.Close)
	for flag, url := range map[string]string{"--tls-verify=false": plain.URL, "--cert-dir": private.URL} {
		_, host, _ := strings.Cut(url, "://")
		for _, way := range []string{"from", "to"} {
			o := testOptions(t, &fakeServer{})
			o.System = imagetest.System(t)
			name := "docker://" + host + "/app:1"
			if way == "from" {
				o.Source = name
			} else {
				o.Destination = name
			}
			_, err := Build(registry.WithPatience(t.Context(), registry.Patience{Retries: -1}), o)
			if err == nil || !strings.Contains(hint.Of(err), flag) {
				t.Errorf("%s %s: %v\nhint: %s\nexpected %s in it", way, url, err, hint.Of(err), flag)
			}
		}
	}
}
