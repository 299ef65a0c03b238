package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestWithoutTSI: the switch is off while sockets are made, and afterwards as it
// was, whatever came of that.
func TestWithoutTSI(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tsi_hijack")
	if err := withoutTSI(path, func() error { return nil }); err != nil {
		t.Errorf("a kernel without: %v", err)
	}
	broken := errors.New("no socket")
	for was, fails := range map[string]error{"Y\n": nil, "N\n": broken} {
		write := func() {
			if err := os.WriteFile(path, []byte(was), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write()
		during := ""
		err := withoutTSI(path, func() error {
			b, err := os.ReadFile(path)
			during = string(b)
			return errors.Join(err, fails)
		})
		after, _ := os.ReadFile(path)
		if during != "N\n" || string(after) != was || !errors.Is(err, fails) {
			t.Errorf("%q: %q meanwhile, %q afterwards, %v", was, during, after, err)
		}
	}
}

// TestCheckDomain: a socket that is not the guest's own is no service.
func TestCheckDomain(t *testing.T) {
	f, err := listenAt("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := checkDomain(f, unix.AF_INET); err != nil {
		t.Error(err)
	}
	const tsi = 46 // what libkrunfw's kernels say of theirs
	if err := checkDomain(f, tsi); err == nil || !strings.Contains(err.Error(), "through the host") {
		t.Errorf("another domain: %v", err)
	}
	path := filepath.Join(t.TempDir(), "s")
	u, err := listenAt("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the socket's name is gone: %v", err)
	}
}

// TestForeignMounts: of what is mounted the service keeps what a report needs.
func TestForeignMounts(t *testing.T) {
	got := foreignMounts("rootfs / rootfs rw 0 0\ndev /dev devtmpfs rw 0 0\nproc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\nconfigfs /sys/kernel/config configfs rw 0 0\n" +
		"run /run tmpfs rw 0 0\n/dev/mapper/ccrun /newroot btrfs rw 0 0\n/dev/mapper/v /newroot/my\\040data\\134 btrfs rw 0 0\n\n")
	if want := []string{`/newroot/my data\`, "/newroot", "/run"}; !slices.Equal(got, want) {
		t.Errorf("%q, expected %q", got, want)
	}
}

// TestReportsWithService: with a service its driver is kept, and nothing else.
func TestReportsWithService(t *testing.T) {
	r := remains{ways: []string{"module sev_guest", "/dev/sev-guest", "configfs on /x", "descriptor 7 of /dev/sev-guest"}, kernel: []string{"/sys/class/misc/sev-guest"}}
	if got := r.but(false); len(got.ways) != 4 || got.refusal() == nil {
		t.Errorf("without: %+v", got)
	}
	got := r.but(true)
	if !slices.Equal(got.ways, r.ways[1:]) || got.refusal() == nil || len(got.kernel) != 2 {
		t.Errorf("with: %+v", got)
	}
	if err := (remains{ways: r.ways[:1]}).but(true).refusal(); err != nil {
		t.Errorf("the driver alone: %v", err)
	}
}

// TestAwaitService: it serves, or says why not, or is gone.
func TestAwaitService(t *testing.T) {
	for said, want := range map[string]string{"!": "", "no device": "no device", "!x": "!x", "": "EOF"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(said); err != nil {
			t.Fatal(err)
		}
		w.Close()
		err = awaitService(t.Context(), r)
		r.Close()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", said, err)
		}
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	ctx, stop := context.WithCancelCause(t.Context())
	stop(errBootTimeout)
	if err := awaitService(ctx, r); !errors.Is(err, errBootTimeout) {
		t.Errorf("one that says nothing: %v", err)
	}
}

// asked is a TEE that is asked.
type askedTEE struct{ rd kbs.ReportData }

func (a *askedTEE) Attest(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
	a.rd = rd
	return kbs.Evidence{TEE: kbs.Sample}, nil
}

// TestEvidenceOfTheWorkload: what the workload has signed is never what a server
// wants of a guest, even if it is the very same bytes.
func TestEvidenceOfTheWorkload(t *testing.T) {
	tee := &askedTEE{}
	s := &guestSource{spec: serviceSpec{WorkloadID: "w"}, attester: tee}
	wanted, err := kbs.Binding("w", kbs.RuntimeData{Nonce: make([]byte, kbs.NonceSize), TEEKey: kbs.TEEKey{KEM: 1, Public: []byte{1}}, IdentityDigest: kbs.Sum384(nil), FooterDigest: kbs.Sum384(nil)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Evidence(t.Context(), wanted[:]); err != nil || tee.rd == wanted || tee.rd == (kbs.ReportData{}) {
		t.Errorf("%x, %v", tee.rd, err)
	}
	if want, _ := kbs.GuestBinding("w", wanted[:]); tee.rd != want {
		t.Errorf("%x, expected %x", tee.rd, want)
	}
	tee.rd = kbs.ReportData{}
	if _, err := (&guestSource{attester: tee}).Evidence(t.Context(), nil); err == nil || tee.rd != (kbs.ReportData{}) {
		t.Errorf("of no workload: %v", err)
	}
}
