package endorsements

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

type roundTrips func(*http.Request) (*http.Response, error)

func (f roundTrips) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestPCSUpdate: early TCB data is asked for in the words of Intel's service,
// and of the documents that have it alone.
func TestPCSUpdate(t *testing.T) {
	for update, want := range map[string]string{"": "/tdx/certification/v4/tcb?fmspc=90c06f000000", UpdateEarly: "/tdx/certification/v4/tcb?fmspc=90c06f000000&update=early"} {
		var asked []string
		client := &http.Client{Transport: roundTrips(func(r *http.Request) (*http.Response, error) {
			asked = append(asked, r.URL.RequestURI())
			if strings.Contains(r.URL.Path, "/tdx/") {
				return nil, errors.New("enough")
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Sgx-Pck-Crl-Issuer-Chain": {"x"}}, Body: io.NopCloser(strings.NewReader("00"))}, nil
		})}
		p, err := NewPCS(PCSOptions{BaseURL: "https://pccs.invalid", Update: update, Fetcher: NewFetcher(FetchOptions{Client: client})})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Fetch(t.Context(), "90c06f000000", "platform"); err == nil || len(asked) == 0 || asked[len(asked)-1] != want {
			t.Errorf("%q: asked for %q, %v", update, asked, err)
		}
		for _, a := range asked[:len(asked)-1] {
			if strings.Contains(a, "update=") {
				t.Errorf("asked for %s", a)
			}
		}
		if q := p.update("?"); q != map[string]string{UpdateEarly: "?update=early"}[update] {
			t.Errorf("%q: %q", update, q)
		}
	}
	if _, err := NewPCS(PCSOptions{Update: "soon"}); err == nil {
		t.Error("update soon")
	}
}
