package workload

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// rotatingServer is a server with one workload, which seals keyslots for real.
type rotatingServer struct {
	reg             kbs.Registration
	current, staged secret.Bytes
	image           string
	commitFails     bool
}

func (s *rotatingServer) Get(context.Context, string) (*kbs.WorkloadStatus, error) {
	return &kbs.WorkloadStatus{Registration: s.reg, Image: s.image}, nil
}

func (s *rotatingServer) Rotate(_ context.Context, _ string, r kbs.RotateRequest) (*kbs.RotateAnswer, error) {
	switch {
	case r.Commit != nil && s.commitFails:
		return nil, errors.New("killed")
	case r.Commit != nil:
		s.current, s.staged, s.image = s.staged, secret.Bytes{}, r.Commit.Image
		return &kbs.RotateAnswer{Rotation: r.Commit.Rotation}, nil
	}
	if s.staged.Len() == 0 {
		var k [32]byte
		rand.Read(k[:])
		s.staged = secret.New(hex.AppendEncode(nil, k[:]))
	}
	kdf, area, err := keyslot.Reseal(r.Stage.Keyslot, s.current, s.staged, rand.Reader)
	if errors.Is(err, keyslot.ErrNotOpened) && keyslot.Opens(r.Stage.Keyslot, s.staged) == nil {
		return &kbs.RotateAnswer{Rotation: "r1", Already: true}, nil
	}
	if err != nil {
		return nil, err
	}
	return &kbs.RotateAnswer{Rotation: "r1", KDF: &kdf, Area: area}, nil
}

// built is a workload image in an image layout and its server.
func built(t *testing.T, change ...func(*Options)) (Options, *rotatingServer, RotateOptions) {
	t.Helper()
	server := &fakeServer{}
	o := testOptions(t, server)
	for _, f := range change {
		f(&o)
	}
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	req := server.the(t)
	s := &rotatingServer{reg: req.Registration, current: secret.New(req.DiskKey)}
	return o, s, RotateOptions{
		WorkloadID: req.Registration.WorkloadID, Source: o.Destination, Destination: o.Destination,
		Server: s, Environment: o.Environment,
	}
}

// opens says which DiskKey opens the image's disk, having read its content.
func opens(t *testing.T, out *output, k secret.Bytes) bool {
	t.Helper()
	disk := bytes.NewReader(out.files[krun.DiskFile])
	h, err := luks.ReadHeader(disk, disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	_, err = h.Unlock(k)
	return err == nil
}

func TestRotate(t *testing.T) {
	t.Parallel()
	for name, destination := range map[string]func(t *testing.T, source string) string{
		"in place": func(_ *testing.T, source string) string { return source },
		"to an archive": func(t *testing.T, _ string) string {
			return "oci-archive:" + filepath.Join(t.TempDir(), "x.tar") + ":app"
		},
		"to another tag": func(_ *testing.T, source string) string { return source + "2" },
	} {
		t.Run(name, func(t *testing.T) {
			o, server, ro := built(t)
			old := server.current
			before := readOutput(t, o.System, o.Destination)
			ro.Destination = destination(t, ro.Source)
			res, err := Rotate(t.Context(), ro)
			if err != nil || !res.Committed || server.image != res.Digest {
				t.Fatalf("Rotate = %+v, %v", res, err)
			}
			after := readOutput(t, o.System, ro.Destination)
			if opens(t, after, old) || !opens(t, after, server.current) {
				t.Fatal("the rotated disk opens with the old key, or not with the new one")
			}
			plain := after.decrypt(t, server.current.Reveal())
			if got := imagetest.Tool(t, "debugfs", "-R", "cat /etc/secret", plain); !strings.HasSuffix(got, imagetest.Canary) {
				t.Errorf("content: %q", got)
			}
			// Nothing that is measured or registered may have changed.
			for _, f := range []string{krun.InitrdFile, krun.TEEConfigFile} {
				if !bytes.Equal(before.files[f], after.files[f]) {
					t.Errorf("%s changed", f)
				}
			}
			if after.labels[krun.LabelIdentityDigest] != before.labels[krun.LabelIdentityDigest] {
				t.Error("labels changed")
			}
			a, b := before.files[krun.DiskFile], after.files[krun.DiskFile]
			at := int(mustHeader(t, a).DataOffsetBytes)
			if len(a) != len(b) || !bytes.Equal(a[at:], b[at:]) || bytes.Equal(a[:at], b[:at]) {
				t.Error("data was re-encrypted, or the header was not")
			}
			imagetest.Empty(t, o.TempDir)
		})
	}
}

func mustHeader(t *testing.T, disk []byte) luks.Geometry {
	t.Helper()
	h, err := luks.ReadHeader(bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	g, err := h.Geometry()
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestRotatePassphrase(t *testing.T) {
	t.Parallel()
	_, server, ro := built(t, func(o *Options) { o.Passphrase = secret.New([]byte("correct horse battery")) })
	if _, err := Rotate(t.Context(), ro); err != nil {
		t.Fatal(err)
	}
	if server.current.Len() != 64 {
		t.Error("passphrase was not replaced")
	}
}

// TestRotateSurvivesKill: at whatever step a rotation ended, every image that
// is there opens with a key that the server has, and running it again ends it.
func TestRotateSurvivesKill(t *testing.T) {
	t.Parallel()
	for name, kill := range map[string]func(t *testing.T, s *rotatingServer, ro *RotateOptions){
		"after staging": func(t *testing.T, _ *rotatingServer, ro *RotateOptions) {
			fine := ro.Destination
			ro.Destination = "oci:/proc/nowhere:x"
			if _, err := Rotate(t.Context(), *ro); err == nil {
				t.Fatal("wrote into /proc")
			}
			ro.Destination = fine
		},
		"after publishing": func(t *testing.T, s *rotatingServer, ro *RotateOptions) {
			s.commitFails = true
			if _, err := Rotate(t.Context(), *ro); err == nil {
				t.Fatal("committed")
			}
			s.commitFails = false
		},
		"before the commit, which was put off": func(t *testing.T, _ *rotatingServer, ro *RotateOptions) {
			ro.KeepOld = true
			if res, err := Rotate(t.Context(), *ro); err != nil || res.Committed {
				t.Fatalf("%+v, %v", res, err)
			}
			ro.KeepOld = false
		},
	} {
		t.Run(name, func(t *testing.T) {
			o, server, ro := built(t)
			kill(t, server, &ro)
			out := readOutput(t, o.System, o.Destination)
			if !opens(t, out, server.current) && !opens(t, out, server.staged) {
				t.Fatal("the image opens with neither key")
			}
			staged := server.staged
			if res, err := Rotate(t.Context(), ro); err != nil || !res.Committed {
				t.Fatalf("again: %+v, %v", res, err)
			}
			out = readOutput(t, o.System, o.Destination)
			if !server.current.Equal(staged) || !opens(t, out, server.current) {
				t.Fatal("the rotation that was begun was not the one ended")
			}
		})
	}
}

func TestRotateRefuses(t *testing.T) {
	t.Parallel()
	_, server, ro := built(t)
	_, _, foreign := built(t)
	for name, change := range map[string]func(*rotatingServer, *RotateOptions){
		"another workload's image": func(_ *rotatingServer, o *RotateOptions) { o.Source = foreign.Source },
		"another workload's id":    func(_ *rotatingServer, o *RotateOptions) { o.WorkloadID = "other" },
		"another identity": func(s *rotatingServer, _ *RotateOptions) {
			s.reg.IdentityDigest = kbs.Sum384([]byte("x"))
		},
		"another disk key at the server": func(s *rotatingServer, _ *RotateOptions) {
			s.current = secret.New([]byte("other"))
		},
		"no image": func(_ *rotatingServer, o *RotateOptions) { o.Source += "x" },
	} {
		s, o := *server, ro
		o.Server = &s
		change(&s, &o)
		if _, err := Rotate(t.Context(), o); err == nil {
			t.Errorf("%s: rotated", name)
		}
		if s.image != "" {
			t.Errorf("%s: committed", name)
		}
	}
	if out := readOutput(t, ro.System, ro.Source); !opens(t, out, server.current) {
		t.Error("a refused rotation changed the image")
	}
}
