package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/krun/measure"
)

// command runs ccrun and returns its exit code and standard output.
func command(t *testing.T, argv ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter = &out, os.Stderr
	code := program.Run(t.Context(), app, append([]string{"ccrun"}, argv...))
	return code, out.String()
}

// testFirmware writes a library and a workload's initrd.
func testFirmware(t *testing.T) (lib, initrd string) {
	t.Helper()
	dir := t.TempDir()
	b, err := firmware.FromParts(bytes.Repeat([]byte{1}, firmware.QBootBytes), bytes.Repeat([]byte{2}, 1<<16), 0x1000000, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := firmware.BuildLibrary(b, bytes.Repeat([]byte{3}, 4096))
	if err != nil {
		t.Fatal(err)
	}
	lib, initrd = filepath.Join(dir, "lib.so"), filepath.Join(dir, "initrd.img")
	for path, data := range map[string][]byte{lib: raw, initrd: bytes.Repeat([]byte{4}, 8192)} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return lib, initrd
}

func TestMeasurePlainIsOneLineOfHex(t *testing.T) {
	lib, initrd := testFirmware(t)
	seen := map[string]bool{}
	for _, args := range [][]string{
		{}, {"--cpus", "2"}, {"--memory", "1g"}, {"--initrd", initrd}, {"--profile", "libkrun-1.12"}, {"--profile", "krunfw-tool"}, {"--profile", "sev-es"},
	} {
		code, out := command(t, append([]string{"measure", "--tee", "snp", "--firmware", lib}, args...)...)
		digits := 96
		if len(args) > 1 && args[1] == "sev-es" {
			digits = 64
		}
		if code != 0 || len(out) != digits+1 || strings.Trim(out, "0123456789abcdef") != "\n" || seen[out] {
			t.Errorf("%v: status %d, %q", args, code, out)
		}
		seen[out] = true
	}
	for _, args := range [][]string{
		{"--cpus", "0"}, {"--memory", "128"}, {"--memory", "1k"}, {"--tee", "sgx"}, {"--tee", "sample"}, {"--profile", "x"},
		{"--profile", "qemu-direct"}, {"--firmware", "/nonexistent"}, {"extra"},
	} {
		if code, out := command(t, append([]string{"measure", "--tee", "snp", "--firmware", lib}, args...)...); code == 0 || out != "" {
			t.Errorf("%v: status %d, %q", args, code, out)
		}
	}
}

// TestMeasureThenBuildAgree: what is measured with --initrd is what the built
// library holds.
func TestMeasureThenBuildAgree(t *testing.T) {
	lib, initrd := testFirmware(t)
	built := filepath.Join(t.TempDir(), "built.so")
	if code, _ := command(t, "firmware", "build", "--from", lib, "--initrd", initrd, "--output", built); code != 0 {
		t.Fatalf("build: status %d", code)
	}
	_, before := command(t, "measure", "--firmware", lib, "--initrd", initrd, "--format", "json")
	_, after := command(t, "measure", "--firmware", built, "--format", "json")
	var x, y measurements
	for text, v := range map[string]*measurements{before: &x, after: &y} {
		if err := json.Unmarshal([]byte(text), v); err != nil {
			t.Fatal(err)
		}
	}
	if len(x.Results) != 3 || len(y.Results) != 3 {
		t.Fatalf("%d and %d profiles, want 3", len(x.Results), len(y.Results))
	}
	for i := range x.Results {
		if x.Results[i].Digest != y.Results[i].Digest || len(x.Results[i].Regions) != 9 {
			t.Errorf("%s: %v and %v", x.Results[i].Profile, x.Results[i].Digest, y.Results[i].Digest)
		}
	}
}

func TestMeasureAgainst(t *testing.T) {
	lib, initrd := testFirmware(t)
	b, err := firmware.Load(lib)
	if err != nil {
		t.Fatal(err)
	}
	given, err := os.ReadFile(initrd)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := measure.FromBundle(b, given)
	if err != nil {
		t.Fatal(err)
	}
	stock, err := measure.FromBundle(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	other := ours
	other.Kernel = bytes.Repeat([]byte{9}, 4096)
	for _, c := range []struct {
		profile measure.Profile
		in      measure.Inputs
		shape   measure.Shape
		code    int
		want    string
	}{
		{measure.Libkrun116, ours, measure.Shape{CPUs: 2, MemoryMiB: 1000}, 0, "has the expected measurement"},
		{measure.Libkrun112, ours, measure.Shape{CPUs: 2, MemoryMiB: 1000}, 3, "differs in profile: the Evidence is of profile libkrun-1.12"},
		{measure.Libkrun116, ours, measure.Shape{CPUs: 4, MemoryMiB: 1000}, 3, "differs in cpus:"},
		{measure.Libkrun116, ours, measure.Shape{CPUs: 2, MemoryMiB: 4096}, 3, "differs in memory:"},
		{measure.KrunfwTool, ours, measure.Shape{CPUs: 2, MemoryMiB: 1000}, 3, "of profile krunfw-tool"},
		{measure.Libkrun116, ours, measure.Shape{CPUs: 4, MemoryMiB: 2048}, 3, "differs in cpus, memory"},
		{measure.Libkrun116, stock, measure.Shape{CPUs: 2, MemoryMiB: 1000}, 3, "it is unpatched"},
		{measure.Libkrun116, other, measure.Shape{CPUs: 2, MemoryMiB: 1000}, 3, "firmware, kernel or initrd differ"},
	} {
		r, err := measure.Launch(c.profile, c.in, c.shape)
		if err != nil {
			t.Fatal(err)
		}
		evidence := make([]byte, 1184)
		copy(evidence[0x90:], r.Digest[:])
		file := filepath.Join(t.TempDir(), "report.bin")
		if err := os.WriteFile(file, evidence, 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := command(t, "measure", "--firmware", lib, "--initrd", initrd, "--cpus", "2", "--memory", "1000", "--against", file)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s %+v: status %d, %q, want %d, %q", c.profile, c.shape, code, out, c.code, c.want)
		}
	}
}

func TestFirmwareInspect(t *testing.T) {
	lib, _ := testFirmware(t)
	code, out := command(t, "firmware", "inspect", "--format", "json", lib)
	var v firmwareParts
	if err := json.Unmarshal([]byte(out), &v); code != 0 || err != nil {
		t.Fatalf("status %d, %v", code, err)
	}
	if v.Kind != "libkrun" || v.KernelLoad != 0x1000000 || len(v.Parts) != 3 || v.Initrd == nil || v.Initrd.Problem == "" {
		t.Errorf("%+v", v)
	}
	if code, _ := command(t, "firmware", "inspect", os.Args[0]); code != 1 {
		t.Errorf("the test binary as firmware: status %d", code)
	}
}
