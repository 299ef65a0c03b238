package attestserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// newMoved is what stands in for a server that is at to now.
func newMoved(t *testing.T, to kbs.Move) *httptest.Server {
	t.Helper()
	m, err := NewMoved(MovedConfig{To: to, Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.Config = m.HTTPServer()
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// TestGuestFollowsAMove to a real server, confirms there, and its release is
// audited there.
func TestGuestFollowsAMove(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	old := newMoved(t, kbs.Move{URLs: []string{r.http.URL}, PinnedKeys: r.pins()})
	c, req := r.guest("w1", 1)
	c.URLs, c.PinnedKeys = []string{old.URL}, []string{kbs.PinOf(old.Certificate())}
	s, k, err := c.Open(t.Context(), req)
	if err != nil || string(k.Reveal()) != diskKeyText+"w1" {
		t.Fatalf("Open = %q, %v", k.Reveal(), err)
	}
	s.Close() // the answer to the confirmation is lost: it is asked again, from the start
	if err := c.Confirm(t.Context(), req, s); err != nil {
		t.Error(err)
	}
	if st, err := r.admin.Get(t.Context(), "w1"); err != nil || st.Releases != 1 {
		t.Errorf("status = %+v, %v", st, err)
	}
}

// TestRunningGuestFollowsAMove: for new secrets, and to close its volume, long after
// its session; and to no server but the one that it is told of by the one it knows.
func TestRunningGuestFollowsAMove(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 9)
	s, k, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k.Wipe()
	g, err := s.OpenVolume(t.Context(), "data", freshKey(7))
	if err != nil {
		t.Fatal(err)
	}
	owner := r.adminClient(r.token(store.Admin))
	r.resource(&owner, "acme/db/password", "w1", "newest")
	guest := r.renewable(t)
	old := newMoved(t, kbs.Move{URLs: []string{r.http.URL}, PinnedKeys: r.pins()})
	guest.Client.URLs, guest.Client.PinnedKeys = []string{old.URL}, []string{kbs.PinOf(old.Certificate())}
	var told string
	guest.OnMoved = func(_, to string) { told = to }
	got, err := guest.Secrets(t.Context(), []string{"acme/db/password"})
	if err != nil || string(got["acme/db/password"].Value.Reveal()) != "newest" || told != r.http.URL {
		t.Errorf("secrets: %v, %v, told of %q", got, err, told)
	}
	v := &kbs.VolumeClient{Client: guest.Client, Workload: "w1", Volume: "data", Token: g.Token}
	if next, err := v.Stage(t.Context(), kbs.VolumeEmpty, 0); err != nil || next != 1 {
		t.Errorf("staged generation %d, %v", next, err)
	}
	guest.Client.PinnedKeys = []string{strings.Repeat("ab", 32)}
	if _, err := guest.Secrets(t.Context(), []string{"acme/db/password"}); !errors.Is(err, kbs.ErrUnpinned) {
		t.Errorf("another server says so: %v", err)
	}
	again := newMoved(t, kbs.Move{URLs: []string{old.URL}, PinnedKeys: []string{kbs.PinOf(old.Certificate())}})
	guest.Client.URLs, guest.Client.PinnedKeys = []string{again.URL}, []string{kbs.PinOf(again.Certificate())}
	if _, err := guest.Secrets(t.Context(), []string{"acme/db/password"}); err == nil || !strings.Contains(err.Error(), "only one move is followed") {
		t.Errorf("two moves: %v", err)
	}
}

// TestMovedReleasesNothing: whatever is asked, in whatever dialect, a server
// that has moved says where to, with words that each client waits at.
func TestMovedReleasesNothing(t *testing.T) {
	to := kbs.Move{URLs: []string{"https://new.example:8443"}, PinnedKeys: []string{strings.Repeat("ab", 32)}}
	s := newMoved(t, to)
	post := func(path, body string) (*http.Response, string) {
		t.Helper()
		resp, err := s.Client().Post(s.URL+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	for _, path := range []string{"/v1/auth", "/v1/attest", "/v1/workloads/w/confirm", "/v1/workloads", "/kbs/v0/auth", "/kbs/v0/attest", "/kbs/v0/key/w", "/"} {
		resp, body := post(path, "{}")
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") != "60" || !strings.Contains(body, to.URLs[0]) {
			t.Errorf("%s: %s %v %s", path, resp.Status, resp.Header, body)
		}
		if native := !strings.HasPrefix(path, "/kbs/"); native != strings.Contains(body, `"code":"moved"`) {
			t.Errorf("%s: %s", path, body)
		}
	}
	good, err := json.Marshal(kbs.MovedRequest{Version: 1, WorkloadID: "w", Challenge: make([]byte, kbs.NonceSize)})
	if err != nil {
		t.Fatal(err)
	}
	resp, body := post("/v1/moved", string(good))
	var a kbs.MovedAnswer
	if err := kbs.UnmarshalStrict([]byte(body), &a); err != nil || resp.StatusCode != http.StatusOK || a.WorkloadID != "w" ||
		!bytes.Equal(a.Challenge, make([]byte, kbs.NonceSize)) || !slices.Equal(a.To.URLs, to.URLs) || !slices.Equal(a.To.PinnedKeys, to.PinnedKeys) {
		t.Errorf("moved: %s %s, %v", resp.Status, body, err)
	}
	for name, bad := range map[string]string{
		"version": strings.Replace(string(good), `"version":1`, `"version":2`, 1), "workload": strings.Replace(string(good), `"w"`, `"-w"`, 1),
		"no challenge": `{"version":1,"workload_id":"w"}`, "more": strings.Replace(string(good), "{", `{"x":1,`, 1), "nothing": "",
	} {
		if resp, body := post("/v1/moved", bad); resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %s %s", name, resp.Status, body)
		}
	}
}

func TestNewMovedRefuses(t *testing.T) {
	good := MovedConfig{To: kbs.Move{URLs: []string{"https://a.example"}, PinnedKeys: []string{strings.Repeat("ab", 32)}}, Clock: time.Now, Log: slog.New(slog.DiscardHandler)}
	if _, err := NewMoved(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*MovedConfig){
		"zero": func(c *MovedConfig) { *c = MovedConfig{} }, "clock": func(c *MovedConfig) { c.Clock = nil }, "log": func(c *MovedConfig) { c.Log = nil },
		"urls": func(c *MovedConfig) { c.To.URLs = nil }, "pins": func(c *MovedConfig) { c.To.PinnedKeys = nil },
		"scheme": func(c *MovedConfig) { c.To.URLs = []string{"http://a.example"} },
	} {
		c := good
		change(&c)
		if _, err := NewMoved(c); err == nil {
			t.Errorf("NewMoved without %s", name)
		}
	}
}
