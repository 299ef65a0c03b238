package endorsements

import (
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// scripted is a vendor in memory: status says what it answers to a path.
type scripted struct {
	status func(path string) int
	header http.Header
	body   []byte // of 200
	asked  []string
}

func (s *scripted) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked = append(s.asked, r.URL.Path)
	code := s.status(r.URL.Path)
	if code == 0 {
		return nil, errors.New("network is unreachable")
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Header: s.header.Clone(), Body: io.NopCloser(strings.NewReader(string(s.body))), Request: r}, nil
}

func (s *scripted) count(part string) (n int) {
	for _, p := range s.asked {
		if strings.Contains(p, part) {
			n++
		}
	}
	s.asked = nil
	return n
}

// outage is a KDS whose vendor is scripted, a chip, and the clock.
func outage(t *testing.T) (*scripted, *KDS, snp.EndorsementKey, *time.Time) {
	v, c := vendortest.NewVendor(t, false), verifiertest.NewChip(t, false)
	s := &scripted{status: func(string) int { return 200 }, header: http.Header{}, body: v.VEK(t, c, verifiertest.VEKOptions{})}
	now := verifiertest.Time
	k, err := NewKDS(KDSOptions{Cache: cacheOf(t, v, t.TempDir()),
		Fetcher: NewFetcher(FetchOptions{Client: &http.Client{Transport: s}, Now: func() time.Time { return now }})})
	if err != nil {
		t.Fatal(err)
	}
	return s, k, snp.EndorsementKey{Product: "Milan", Signer: verifier.VCEK, ChipID: c.ID[:], TCB: c.TCB}, &now
}

// TestCRLOutageLeavesVCEKsAlone: while CRLs cannot be had, at boot before the
// uplink is there for example, the VCEK that a guest waits for is asked for.
func TestCRLOutageLeavesVCEKsAlone(t *testing.T) {
	for _, status := range []int{0, 429, 500, 302} {
		s, k, key, _ := outage(t)
		s.status = func(path string) int {
			if strings.HasSuffix(path, "/crl") {
				return status
			}
			return 200
		}
		for range 3 {
			if _, err := k.CRL(t.Context(), "Milan"); !errors.Is(err, verifier.ErrBusy) {
				t.Errorf("%d: CRL: %v", status, err)
			}
		}
		if n := s.count("/crl"); n != 1 {
			t.Errorf("%d: CRL asked for %d times at once", status, n)
		}
		if got, err := k.Candidates(t.Context(), key); err != nil || len(got) != 1 {
			t.Errorf("%d: VCEK after a CRL that could not be had: %v", status, err)
		}
	}
}

// TestBusySaysWhenToComeBack, so that guests can be told.
func TestBusySaysWhenToComeBack(t *testing.T) {
	for header, want := range map[string]time.Duration{"": firstPause, "5": firstPause, "42": 42 * time.Second, "86400": longestPause, "9999999999999": longestPause, "x": firstPause} {
		s, k, key, now := outage(t)
		s.status, s.header = func(string) int { return 429 }, http.Header{"Retry-After": {header}}
		for _, passed := range []time.Duration{0, 3 * time.Second} {
			*now = now.Add(passed)
			_, err := k.Candidates(t.Context(), key)
			var busy *verifier.Busy
			if !errors.As(err, &busy) || !errors.Is(err, verifier.ErrBusy) || busy.After != want-passed {
				t.Errorf("%q, %s later: %v, expected to come back after %s", header, passed, err, want-passed)
			}
		}
		if n := s.count("vcek"); n != 1 {
			t.Errorf("asked %d times, expected once", n)
		}
	}
}

// TestAbsenceIsForgotten in minutes, and on reload at once. What all machines
// need is asked for again each time.
func TestAbsenceIsForgotten(t *testing.T) {
	s, k, key, now := outage(t)
	s.status = func(string) int { return 404 }
	absent := func() {
		t.Helper()
		if _, err := k.Candidates(t.Context(), key); !errors.Is(err, verifier.ErrNoEndorsement) {
			t.Errorf("absent: %v", err)
		}
	}
	absent()
	absent()
	if n := s.count("vcek"); n != 1 {
		t.Errorf("asked %d times, expected once", n)
	}
	*now = now.Add(3 * time.Minute)
	absent()
	if n := s.count("vcek"); n != 1 {
		t.Errorf("three minutes later: asked %d times", n)
	}
	k.o.Fetcher.Forget()
	s.status = func(string) int { return 200 }
	if _, err := k.Candidates(t.Context(), key); err != nil {
		t.Errorf("after Forget: %v", err)
	}
	s.count("")
	s.status = func(string) int { return 404 }
	for range 3 {
		if _, err := k.CRL(t.Context(), "Milan"); !errors.Is(err, verifier.ErrNoEndorsement) {
			t.Errorf("CRL: %v", err)
		}
	}
	if n := s.count("crl"); n != 3 {
		t.Errorf("a CRL that was absent once is asked for %d times of three", n)
	}
}

// TestReloadAsksAgain: an operator who has filled a PCCS, or opened a firewall,
// reloads, and need not restart.
func TestReloadAsksAgain(t *testing.T) {
	_, collateral, at := vendortest.RealTD(t)
	fmspc, err := collateral.FMSPC()
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{404, 503} {
		s := &scripted{status: func(string) int { return status }, header: http.Header{}}
		supply, err := OpenSupply(SupplyOptions{CacheDir: t.TempDir(), PCSURL: "https://pccs.invalid", Client: &http.Client{Transport: s}, Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		ask := func() int {
			_, _ = supply.Collateral(t.Context(), fmspc, "platform")
			return s.count("")
		}
		if ask() != 1 {
			t.Fatalf("%d: not asked", status)
		}
		if _, err := supply.Reload(); err != nil {
			t.Fatal(err)
		}
		if n := ask(); n != 1 {
			t.Errorf("%d: asked %d times after a reload", status, n)
		}
	}
}

// TestRunComesBackSoon: CRLs that could not be had at boot are there within
// seconds of the uplink, and an outage of days is asked for now and then.
func TestRunComesBackSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &scripted{status: func(string) int { return 0 }, header: http.Header{}}
		supply, err := OpenSupply(SupplyOptions{CacheDir: t.TempDir(), Client: &http.Client{Transport: s}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		var rounds []time.Duration
		const reload = 20*time.Hour + 7*time.Second
		time.AfterFunc(reload, func() {
			if _, err := supply.Reload(); err != nil {
				t.Error(err)
			}
		})
		supply.Run(ctx, func(err error) {
			if err == nil {
				t.Error("no error of a vendor that is away")
			}
			rounds = append(rounds, time.Since(start))
		})
		if rounds[1] > 20*time.Second || rounds[2] > time.Minute || len(rounds) < 90 || len(rounds) > 110 {
			t.Errorf("%d rounds in a day, the first at %s", len(rounds), rounds[:4])
		}
		if i := slices.Index(rounds, reload); i < 0 || rounds[i+1] != reload+firstRetry {
			t.Error("a reload does not have CRLs asked for at once, and soon again")
		}
	})
}
