package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/secret"
)

func firstKeyslot(t *testing.T, diskKey string) kbs.Keyslot {
	t.Helper()
	g, err := luks.DefaultGeometry("11111111-2222-4333-8444-555555555555", 64<<10, true)
	if err != nil {
		t.Fatal(err)
	}
	vk, err := luks.NewVolumeKey(rand.Reader, g)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := luks.NewWriter(&b, g, vk, secret.New([]byte(diskKey)), luks.WriterOptions{KDF: luks.FastKDF(), Rand: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 64<<10)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	h, err := luks.ReadHeader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.SealedSlot()
	if err != nil {
		t.Fatal(err)
	}
	return kbs.Keyslot{KDF: kbs.KeyslotKDF{Type: s.KDF.Type, Salt: s.Salt, Iterations: s.KDF.Iterations},
		Area: s.Area, KeyBytes: s.VolumeKeyBytes, DigestSalt: s.DigestSalt, DigestIterations: s.DigestIterations, Digest: s.Digest}
}

// TestKillDuringRotations rotates without end while the server is killed again
// and again: the keyslot that was published last must open with a key that the
// store still releases.
func TestKillDuringRotations(t *testing.T) {
	dir, token := initDir(t)
	published := firstKeyslot(t, "disk key of w")
	commits := 0
	// At least 8 kills, and on a slow machine as many as it takes for one
	// rotation to get through: the time given grows.
	for round := 0; round < 8 || commits == 0 && round < 60; round++ {
		cmd, url := process(t, nil, "--data", dir)
		c := admin(t, dir, url, token)
		if _, err := c.Register(t.Context(), registration("w", 1)); round == 0 && err != nil {
			t.Fatal(err)
		}
		killed := time.AfterFunc(time.Duration(20+15*round)*time.Millisecond, func() { cmd.Process.Kill() })
		for {
			a, err := c.Rotate(context.Background(), "w", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: published}})
			if err != nil {
				break
			}
			if !a.Already {
				published.KDF, published.Area = *a.KDF, a.Area
			}
			if _, err := c.Rotate(context.Background(), "w", kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: a.Rotation}}); err != nil {
				break
			}
			commits++
		}
		killed.Stop()
		cmd.Process.Kill()
		cmd.Wait()
		checkOpens(t, dir, published, round)
	}
	if commits == 0 {
		t.Error("no rotation was ever committed: the test shows nothing")
	}
}

func checkOpens(t *testing.T, dir string, slot kbs.Keyslot, round int) {
	t.Helper()
	master, err := store.LoadMasterKey("", dir)
	if err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), inDir(dir, storeName), store.Options{MasterKey: master, Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w, err := s.Workload(t.Context(), "w")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []func(context.Context, string, kbs.Digest, string) (secret.Bytes, error){s.Release, s.ReleaseStaged} {
		if k, err := release(t.Context(), "w", w.Digest, "n"); err == nil && keyslot.Opens(slot, k) == nil {
			return
		}
	}
	t.Fatalf("round %d: the published keyslot opens with no key there is", round)
}
