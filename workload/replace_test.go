package workload

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// versionServer is a fakeServer whose workload has version 3 as its newest.
type versionServer struct {
	*fakeServer
	have  kbs.Registration
	calls []string
}

func (s *versionServer) Get(context.Context, string) (*kbs.WorkloadStatus, error) {
	return &kbs.WorkloadStatus{Registration: s.have, Version: 3}, nil
}

func (s *versionServer) Register(ctx context.Context, r kbs.RegisterRequest) (bool, error) {
	s.calls = append(s.calls, "register")
	return s.fakeServer.Register(ctx, r)
}

func (s *versionServer) Revoke(ctx context.Context, id string) (*kbs.WorkloadStatus, error) {
	s.calls = append(s.calls, "revoke "+id)
	return s.fakeServer.Revoke(ctx, id)
}

// TestReplace: a build names the version that it replaces and its end, ends it
// early only when the new image is there, and takes back its own alone.
func TestReplace(t *testing.T) {
	have := kbs.Registration{Version: 1, WorkloadID: "shop", IdentityDigest: kbs.Digest{1}, FooterDigest: kbs.Digest{2},
		ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{3}}}}}
	canonical, err := kbs.Canonical(have)
	if err != nil {
		t.Fatal(err)
	}
	date := time.Date(2037, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		r     Replacement
		until time.Time
		calls []string
	}{
		"a date":  {Replacement{Until: &date}, date, []string{"register"}},
		"no date": {Replacement{}, time.Now().Add(DefaultOverlap), []string{"register"}},
		"at once": {Replacement{AtOnce: true}, time.Now().Add(DefaultOverlap), []string{"register", "revoke shop@3"}},
	} {
		s := &versionServer{fakeServer: &fakeServer{}, have: have}
		o := testOptions(t, nil)
		o.Registrar, o.WorkloadID, o.Replace = s, "shop", &c.r
		res, err := Build(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r := s.the(t).Replace
		if r == nil || r.Expect != kbs.Sum384(canonical) || r.NotAfter.Sub(c.until).Abs() > time.Hour {
			t.Errorf("%s: told %+v", name, r)
		}
		if !slices.Equal(s.calls, c.calls) || res.Replaced.WorkloadID != "shop@3" || res.Replaced.Revoked != c.r.AtOnce {
			t.Errorf("%s: %q, %+v", name, s.calls, res.Replaced)
		}
	}
	// Where the image cannot be published, it removes the version it made.
	s := &versionServer{fakeServer: &fakeServer{}, have: have}
	o := testOptions(t, nil)
	out := strings.TrimSuffix(strings.TrimPrefix(o.Destination, "oci:"), ":app")
	o.Registrar, o.WorkloadID, o.Replace = &spoiling{s, out}, "shop", &Replacement{AtOnce: true}
	if _, err := Build(t.Context(), o); err == nil || !slices.Equal(s.removed, []string{"shop@4"}) || !slices.Equal(s.calls, []string{"register"}) {
		t.Errorf("%v; removed %q, %q", err, s.removed, s.calls)
	}
	o = testOptions(t, &fakeServer{})
	o.WorkloadID, o.Replace = "shop", &Replacement{}
	if _, err := Build(t.Context(), o); err == nil {
		t.Error("replaced what is not there")
	}
}

// TestRegisterNext: a record becomes the next version; a run that was killed is
// repeated, and then ends the version before that one, never its own.
func TestRegisterNext(t *testing.T) {
	record := &kbs.Record{DiskKey: []byte("key"), Registration: kbs.Registration{Version: 1, WorkloadID: "shop", IdentityDigest: kbs.Digest{1}, FooterDigest: kbs.Digest{2},
		ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{3}}}}}}
	older := record.Registration
	older.IdentityDigest = kbs.Digest{9}
	for name, c := range map[string]struct {
		have   kbs.Registration
		before string
	}{"the next": {older, "shop@3"}, "repeated": {record.Registration, "shop@2"}} {
		s := &versionServer{fakeServer: &fakeServer{}, have: c.have}
		_, replaced, err := Register(t.Context(), s, record, &Replacement{AtOnce: true})
		if err != nil || replaced.WorkloadID != c.before || !replaced.Revoked || !slices.Equal(s.calls, []string{"register", "revoke " + c.before}) {
			t.Errorf("%s: %+v, %v, %q", name, replaced, err, s.calls)
		}
		if r := s.the(t).Replace; r == nil || r.NotAfter.IsZero() {
			t.Errorf("%s: told %+v", name, r)
		}
	}
	if _, _, err := Register(t.Context(), &fakeServer{}, record, &Replacement{}); err == nil {
		t.Error("replaced what is not there")
	}
}

// spoiling takes the destination away as soon as the build has registered.
type spoiling struct {
	*versionServer
	out string
}

func (s *spoiling) Register(ctx context.Context, r kbs.RegisterRequest) (bool, error) {
	created, err := s.versionServer.Register(ctx, r)
	return created, errors.Join(err, os.RemoveAll(s.out), os.WriteFile(s.out, nil, 0o600))
}
