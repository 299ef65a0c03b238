package store

import (
	"reflect"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestGiven: a session's record says what its guest got, and keeps all else that is
// in it; a session that is forgotten keeps nobody from anything.
func TestGiven(t *testing.T) {
	s, d := volumeStore(t)
	for _, session := range []string{"n", "m"} {
		if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: session, WorkloadID: "a", At: start, Granted: true, Peer: "192.0.2.1"}, true); err != nil {
			t.Fatal(err)
		}
	}
	given := func(want kbs.Given) {
		t.Helper()
		r, err := s.Session(t.Context(), "n")
		if err != nil || r.Given == nil || !reflect.DeepEqual(*r.Given, want) || r.Peer != "192.0.2.1" || !r.Granted {
			t.Errorf("%+v, %v, expected %+v", r.Given, err, want)
		}
	}
	for _, name := range []string{"data", "logs", "data"} {
		openVolume(t, s, d, name, 1)
	}
	given(kbs.Given{Volumes: []string{"data", "logs"}})
	if _, err := s.ReleaseConfig(t.Context(), "a", d, "n"); err != nil {
		t.Fatal(err)
	}
	given(kbs.Given{Volumes: []string{"data", "logs"}}) // there is none
	setEnv(t, s, "a", "LEVEL", "debug")
	for _, session := range []string{"n", "gone"} {
		if _, err := s.ReleaseConfig(t.Context(), "a", d, session); err != nil {
			t.Fatal(err)
		}
	}
	given(kbs.Given{Volumes: []string{"data", "logs"}, Config: 1})
	id := kbs.ResourceID{Repo: "acme", Type: "db", Tag: "password"}
	if _, err := s.PutResource(t.Context(), id, kbs.ResourcePolicy{Workloads: []string{"a"}}, diskKey("value"), anyone); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := s.ReleaseSecrets(t.Context(), []kbs.ResourceID{id, {Repo: "acme", Type: "no", Tag: "such"}}, "a", d, "n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.ReleaseResource(t.Context(), id, "a", d, "n"); err != nil {
		t.Fatal(err)
	}
	given(kbs.Given{Volumes: []string{"data", "logs"}, Config: 1, Secrets: 3})
	if r, err := s.Session(t.Context(), "m"); err != nil || r.Given != nil {
		t.Errorf("another session: %+v, %v", r.Given, err)
	}
}
