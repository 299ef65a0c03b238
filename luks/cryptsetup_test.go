package luks

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/secret"
)

// cryptsetup runs the real one on regular files, which needs no privilege.
func cryptsetup(t *testing.T, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("cryptsetup")
	if err != nil {
		path = "/usr/sbin/cryptsetup"
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("cryptsetup is not installed")
			}
			t.Skip("cryptsetup is not installed")
		}
	}
	cmd := exec.Command(path, append([]string{"--batch-mode", "--disable-locks"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestCryptsetupOpensOurs(t *testing.T) {
	for name, integrity := range map[string]bool{"plain": false, "integrity": true} {
		t.Run(name, func(t *testing.T) {
			g := mustGeometry(t, 5<<20, integrity)
			vk := mustKey(t, g)
			disk := writeTemp(t, "disk", mustDisk(t, g, vk, plaintext(5<<20)))
			pass := writeTemp(t, "pass", testPassphrase().Reveal())
			before, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			if out := cryptsetup(t, "open", "--test-passphrase", "--debug", "--key-file", pass, disk); strings.Contains(out, "checksum error") || strings.Contains(out, "WARNING") {
				t.Fatalf("cryptsetup complains:\n%s", out)
			}
			dump := cryptsetup(t, "luksDump", disk)
			for _, want := range []string{g.UUID, "aes-xts-plain64", "sector: 4096", "Iterations: 1000"} {
				if !strings.Contains(dump, want) {
					t.Errorf("luksDump lacks %q:\n%s", want, dump)
				}
			}
			out := disk + ".vk"
			cryptsetup(t, "luksDump", "--dump-volume-key", "--volume-key-file", out, "--key-file", pass, disk)
			got, err := os.ReadFile(out)
			if err != nil || !bytes.Equal(got, vk.b) {
				t.Fatalf("cryptsetup finds another volume key (%d bytes, %v)", len(got), err)
			}
			if after, err := os.ReadFile(disk); err != nil || !bytes.Equal(before, after) {
				t.Fatalf("cryptsetup repaired the disk (%v)", err)
			}
		})
	}
}

func TestCryptsetupEditsOurs(t *testing.T) {
	g := mustGeometry(t, 1<<20, true)
	vk := mustKey(t, g)
	disk := writeTemp(t, "disk", mustDisk(t, g, vk, plaintext(1<<20)))
	pass, other := writeTemp(t, "pass", testPassphrase().Reveal()), writeTemp(t, "other", []byte("a second passphrase"))
	cryptsetup(t, "luksAddKey", "--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "64", "--pbkdf-parallel", "2", "--key-file", pass, disk, other)
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	h, err := ReadHeader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []secret.Bytes{testPassphrase(), secret.New([]byte("a second passphrase"))} {
		if key, err := h.Unlock(p); err != nil || key.Digest() != vk.Digest() {
			t.Fatalf("unlocking after luksAddKey: %v", err)
		}
	}
}

func TestCryptsetupOpensRotated(t *testing.T) {
	_, vk, b := smallDisk(t, true)
	h, err := open(b)
	if err != nil {
		t.Fatal(err)
	}
	kdf := KDF{Type: "argon2id", Iterations: 4, MemoryKiB: 1024, Threads: 2}
	front, err := h.ReplaceKeyslots(vk, secret.New([]byte("rotated")), kdf, seeded(7))
	if err != nil {
		t.Fatal(err)
	}
	copy(b, front)
	disk, pass := writeTemp(t, "disk", b), writeTemp(t, "pass", []byte("rotated"))
	cryptsetup(t, "open", "--test-passphrase", "--key-file", pass, disk)
	if dump := cryptsetup(t, "luksDump", disk); !strings.Contains(dump, "argon2id") || strings.Contains(dump, "1: luks2") {
		t.Fatalf("rotated header:\n%s", dump)
	}
}

func TestOpensCryptsetups(t *testing.T) {
	for name, kdf := range map[string][]string{
		"pbkdf2":        {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"},
		"pbkdf2-sha512": {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha512"},
		"argon2id":      {"--pbkdf", "argon2id", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1024"},
		"argon2i":       {"--pbkdf", "argon2i", "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1024"},
		"sector-4096":   {"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--sector-size", "4096"},
	} {
		t.Run(name, func(t *testing.T) {
			disk, pass := writeTemp(t, "disk", make([]byte, 20<<20)), writeTemp(t, "pass", []byte("swordfish"))
			vk := writeTemp(t, "vk", plaintext(64))
			args := append([]string{"luksFormat", "--type", "luks2", "--key-size", "512", "--volume-key-file", vk}, kdf...)
			cryptsetup(t, append(args, disk, pass)...)
			b, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			h, err := ReadHeader(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			key, err := h.Unlock(secret.New([]byte("swordfish")))
			if err != nil || !bytes.Equal(key.b, plaintext(64)) {
				t.Fatalf("unlocking: %v", err)
			}
			if g, err := h.Geometry(); err != nil || g.PlainBytes != 4<<20 || g.DataOffsetBytes != 16<<20 {
				t.Fatalf("geometry %+v, %v", g, err)
			}
		})
	}
}

// TestReadsWhatCryptsetupEncrypted compares data, not only headers: cryptsetup
// encrypts a file in place, without the kernel, and we read it.
func TestReadsWhatCryptsetupEncrypted(t *testing.T) {
	const n = 2 << 20
	for _, sector := range []string{"512", "4096"} {
		t.Run(sector, func(t *testing.T) {
			plain := plaintext(n)
			disk := writeTemp(t, "disk", append(bytes.Clone(plain), make([]byte, 32<<20)...))
			pass := writeTemp(t, "pass", testPassphrase().Reveal())
			cryptsetup(t, "reencrypt", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M", "--sector-size", sector,
				"--cipher", "aes-xts-plain64", "--key-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", pass, disk)
			b, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			h, err := open(b)
			if err != nil {
				t.Fatal(err)
			}
			g, err := h.Geometry()
			if err != nil {
				t.Fatal(err)
			}
			vk, err := h.Unlock(testPassphrase())
			if err != nil {
				t.Fatal(err)
			}
			r, err := NewReader(bytes.NewReader(b), g, vk)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, n)
			if _, err := r.ReadAt(got, 0); err != nil || !bytes.Equal(got, plain) {
				t.Fatalf("content differs, %v", err)
			}
		})
	}
}
