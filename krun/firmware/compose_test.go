package firmware

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware/ovmftest"
)

// composed is a directory with QEMU's firmware.
func composed(t *testing.T) (string, *Bundle) {
	t.Helper()
	in, out := t.TempDir(), filepath.Join(t.TempDir(), "out")
	writeFile(t, filepath.Join(in, "kernel"), []byte("kernel"))
	writeFile(t, filepath.Join(in, "fd"), ovmftest.AmdSev().Build())
	b, err := WriteDir(out, Sample{Kernel: filepath.Join(in, "kernel"), Cmdline: "quiet", OVMF: filepath.Join(in, "fd"), CPU: "EPYC-v4"})
	if err != nil {
		t.Fatal(err)
	}
	return out, b
}

func TestComposeOVMF(t *testing.T) {
	dir, b := composed(t)
	if b.Kind != KindOVMF || !bytes.Equal(b.OVMF.Image, ovmftest.AmdSev().Build()) || b.CPU != "EPYC-v4" || b.Cmdline != "quiet" || string(b.Kernel) != "kernel" {
		t.Errorf("%+v", b)
	}
	again, same := composed(t)
	for _, name := range []string{ConfigFile, kernelFile, ovmfFile} {
		x, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if y, _ := os.ReadFile(filepath.Join(again, name)); !bytes.Equal(x, y) {
			t.Errorf("%s differs from one time to the next", name)
		}
	}
	if b.Digest != same.Digest {
		t.Error("digests of the same firmware differ")
	}
}

// TestDigestCoversMachine: nothing that boots can change without the digest.
func TestDigestCoversMachine(t *testing.T) {
	_, b := composed(t)
	for name, change := range map[string]func(*Bundle){
		"CPU":     func(b *Bundle) { b.CPU = "EPYC-Milan" },
		"no CPU":  func(b *Bundle) { b.CPU = "" },
		"OVMF":    func(b *Bundle) { o := *b.OVMF; o.Image = append([]byte{1}, o.Image...); b.OVMF = &o },
		"cmdline": func(b *Bundle) { b.Cmdline += " x" },
		"kernel":  func(b *Bundle) { b.Kernel = []byte("kernem") },
		"initrd":  func(b *Bundle) { b.InitrdBase = []byte("init") },
	} {
		other := *b
		change(&other)
		if err := other.seal(); err != nil || other.Digest == b.Digest {
			t.Errorf("%s: same digest (%v)", name, err)
		}
	}
}

// TestSpoiledDirectory: a file of another build, or cut short, is not taken for
// the one that was composed.
func TestSpoiledDirectory(t *testing.T) {
	config := func(change func(*Config)) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, ConfigFile)
			raw, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var c Config
			if err := json.Unmarshal(raw, &c); err != nil {
				t.Fatal(err)
			}
			change(&c)
			if raw, err = json.Marshal(c); err != nil {
				t.Fatal(err)
			}
			writeFile(t, path, raw)
		}
	}
	file := func(name string, content []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, name), content) }
	}
	image := ovmftest.AmdSev().Build()
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"another kernel":       {file(kernelFile, []byte("kernem")), "SHA-256"},
		"OVMF cut short":       {file(ovmfFile, image[:len(image)-4096]), "SHA-256"},
		"OVMF of 2 builds":     {file(ovmfFile, append([]byte{1}, image[1:]...)), "SHA-256"},
		"no OVMF":              {func(_ *testing.T, dir string) { _ = os.Remove(filepath.Join(dir, ovmfFile)) }, ovmfFile},
		"OVMF not named":       {config(func(c *Config) { c.OVMF = "" }), "without OVMF"},
		"no OVMF at all":       {config(func(c *Config) { c.OVMF, c.SHA256 = kernelFile, nil }), "not an OVMF"},
		"unread checksum":      {config(func(c *Config) { c.SHA256["x"] = "00" }), "none of the firmware's files"},
		"checksum left out":    {config(func(c *Config) { delete(c.SHA256, kernelFile) }), "SHA-256"},
		"CPU with options":     {config(func(c *Config) { c.CPU = "EPYC,+x" }), "CPU model"},
		"for the simulator":    {config(func(c *Config) { c.Kind = KindQEMUDirect }), "takes no OVMF"},
		"for libkrun":          {config(func(c *Config) { c.Kind = KindLibkrun }), "takes no OVMF"},
		"with a qboot":         {config(func(c *Config) { c.QBoot = kernelFile }), "takes no qboot"},
		"with an address":      {config(func(c *Config) { c.KernelLoad = 4096 }), "load address"},
		"out of the directory": {config(func(c *Config) { c.OVMF = "../fd" }), "invalid"},
	} {
		dir, _ := composed(t)
		c.spoil(t, dir)
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, expected %q", name, err, c.want)
		}
	}
}
