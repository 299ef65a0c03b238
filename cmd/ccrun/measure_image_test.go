package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
)

// ociImage writes an image with one layer of these files as an OCI layout.
func ociImage(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	blob := func(b []byte) string {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(`"digest":"sha256:%s","size":%d`, name, len(b))
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for name, b := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(layer.Bytes())
	config := blob(fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sum))
	manifest := blob([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
		"config":{"mediaType":"application/vnd.oci.image.config.v1+json",` + config + `},
		"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar",` + blob(layer.Bytes()) + `}]}`))
	for name, text := range map[string]string{
		"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",` + manifest + `}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "oci:" + dir
}

func TestMeasureImage(t *testing.T) {
	lib, initrd := testFirmware(t)
	content, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	policy := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const config = `{"workload_id":"w","cpus":3,"ram_mib":1000,"tee":"snp","tee_data":"{}","attestation_url":"https://a.example"}`
	image := ociImage(t, map[string][]byte{"initrd.img": content, "krun-sev.json": []byte(config), "disk.img": lukstest.New(t, "passphrase", luks.FastKDF(), false).Bytes})
	for _, c := range []struct{ extra, same []string }{
		{nil, []string{"--cpus", "3", "--memory", "1000"}},
		{[]string{"--cpus", "2"}, []string{"--cpus", "2", "--memory", "1000"}},
		{[]string{"--memory", "2g"}, []string{"--cpus", "3", "--memory", "2g"}},
	} {
		code, got := command(t, append([]string{"measure", "--signature-policy", policy, "--firmware", lib, "--image", image}, c.extra...)...)
		_, want := command(t, append([]string{"measure", "--firmware", lib, "--initrd", initrd}, c.same...)...)
		if code != 0 || got != want || got == "" {
			t.Errorf("%v: status %d, %q, want %q", c.extra, code, got, want)
		}
	}
	code, out := command(t, "measure", "--signature-policy", policy, "--firmware", lib, "--image", image, "--format", "json")
	var m measurements
	if err := json.Unmarshal([]byte(out), &m); err != nil || code != 0 || m.TEE != "snp" || m.Results[0].CPUs != 3 {
		t.Errorf("status %d, %v, %s", code, err, out)
	}
	empty := ociImage(t, map[string][]byte{"etc/passwd": []byte("x")})
	bare := ociImage(t, map[string][]byte{"disk.img": lukstest.New(t, "passphrase", luks.FastKDF(), false).Bytes})
	for _, args := range [][]string{{"--image", empty}, {"--image", bare}, {"--image", image, "--initrd", initrd}, {"--image", "oci:/nonexistent"}, {"--image", image, "--vmm", "qemu"}} {
		if code, out := command(t, append([]string{"measure", "--signature-policy", policy, "--firmware", lib}, args...)...); code == 0 || out != "" {
			t.Errorf("%v: status %d, %q", args, code, out)
		}
	}
}
