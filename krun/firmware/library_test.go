package firmware

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// noise is n reproducible bytes.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed)
	_, _ = rand.NewChaCha8(s).Read(b)
	return b
}

func testBundle(t testing.TB) *Bundle {
	t.Helper()
	b := &Bundle{Kind: KindLibkrun, QBoot: noise(1, QBootBytes), Kernel: noise(2, 5*BundleAlign), KernelLoad: 0x1000000, KernelEntry: 0x10009a3}
	if err := b.seal(); err != nil {
		t.Fatal(err)
	}
	return b
}

// gcc returns the compiler, or skips; in CI it must be there.
func gcc(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("gcc")
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal("gcc is needed in CI")
	}
	if err != nil {
		t.Skip("gcc is not installed")
	}
	return path
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// dumper loads a library as libkrun does and prints what it returns.
const dumper = `
#include <dlfcn.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#define SYM(h, name) ({ void *p = dlsym(h, name); if (!p) { puts(dlerror()); exit(1); } p; })
static void dump(const char *dir, const char *name, char *p, size_t n) {
  char path[4096]; snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "wb"); fwrite(p, 1, n, f); fclose(f);
  p[0] ^= 1; p[n - 1] ^= 1; /* libkrun may write to its private copy */
  printf("%s aligned %d\n", name, ((uintptr_t)p & 4095) == 0);
}
int main(int argc, char **argv) {
  void *h = dlopen(argv[1], RTLD_NOW);
  if (!h) { puts(dlerror()); return 1; }
  char *(*kernel)(uint64_t *, uint64_t *, size_t *) = SYM(h, "krunfw_get_kernel");
  char *(*initrd)(size_t *) = SYM(h, "krunfw_get_initrd");
  char *(*qboot)(size_t *) = SYM(h, "krunfw_get_qboot");
  int (*version)(void) = SYM(h, "krunfw_get_version");
  uint64_t load, entry; size_t n; char *p;
  p = kernel(&load, &entry, &n); dump(argv[2], "kernel", p, n);
  printf("load %#lx entry %#lx version %d\n", load, entry, version());
  p = initrd(&n); dump(argv[2], "initrd", p, n);
  p = qboot(&n); dump(argv[2], "qboot", p, n);
  return dlsym(h, "krunfw_get_nothing") != NULL;
}`

func TestBuiltLibraryLoadsWithDlopen(t *testing.T) {
	cc, dir := gcc(t), t.TempDir()
	b := testBundle(t)
	initrd, err := ComposeInitrd(noise(3, 100_001), noise(4, 777))
	if err != nil {
		t.Fatal(err)
	}
	lib, err := BuildLibrary(b, initrd)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, LibraryName)
	writeFile(t, path, lib)
	writeFile(t, filepath.Join(dir, "dump.c"), []byte(dumper))
	run(t, cc, "-Wall", "-o", filepath.Join(dir, "dump"), filepath.Join(dir, "dump.c"), "-ldl")
	got := run(t, filepath.Join(dir, "dump"), path, dir)
	want := "kernel aligned 1\nload 0x1000000 entry 0x10009a3 version 5\ninitrd aligned 1\nqboot aligned 1\n"
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	boot, err := b.BootInitrd(initrd)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{"kernel": b.Kernel, "initrd": boot, "qboot": b.QBoot} {
		have, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || !bytes.Equal(have, want) {
			t.Errorf("%s as loaded differs from what is measured (%v)", name, err)
		}
		if len(have)%BundleAlign != 0 {
			t.Errorf("%s has %d bytes, not a multiple of %d", name, len(have), BundleAlign)
		}
	}
}

func TestLoadReadsBuiltLibrary(t *testing.T) {
	b := testBundle(t)
	initrd, err := ComposeInitrd(noise(3, 70_000))
	if err != nil {
		t.Fatal(err)
	}
	lib, err := BuildLibrary(b, initrd)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lib.so")
	writeFile(t, path, lib)
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, _ := b.BootInitrd(initrd)
	if got.Digest != b.Digest || got.KernelEntry != b.KernelEntry || !bytes.Equal(got.Initrd, boot) {
		t.Errorf("loaded library differs from what it was built of")
	}
	if again, _ := BuildLibrary(got, initrd); !bytes.Equal(again, lib) {
		t.Error("building from the built library gives other bytes")
	}
}

// cBundle is a library source as upstream's bin2cbundle.py writes it, but for one
// literal an array where that has one a byte, for which compilers take seconds.
func cBundle(static string, args int) string {
	array := func(name string, seed uint64, n int) string {
		var s strings.Builder
		fmt.Fprintf(&s, "__attribute__ ((aligned (65536))) %s char %s_BUNDLE[] = \n\"", static, name)
		for _, c := range noise(seed, n) {
			fmt.Fprintf(&s, "\\%03o", c)
		}
		return s.String() + "\";\n"
	}
	entry := ""
	params := "size_t *load_addr, size_t *size"
	if args == 3 {
		params, entry = "size_t *load_addr, size_t *entry_addr, size_t *size", "*entry_addr = 16779683;"
	}
	return "#include <stddef.h>\n" +
		array("KERNEL", 2, 2*PageBytes) + array("QBOOT", 1, QBootBytes) + array("INITRD", 3, PageBytes) +
		"char * krunfw_get_kernel(" + params + ") { *load_addr = 16777216; " + entry +
		" *size = sizeof(KERNEL_BUNDLE) - 1; return &KERNEL_BUNDLE[0]; }\n" +
		"int krunfw_get_version() { return 5; }\n" +
		"char * krunfw_get_qboot(size_t *size) { *size = sizeof(QBOOT_BUNDLE) - 1; return &QBOOT_BUNDLE[0]; }\n" +
		"char * krunfw_get_initrd(size_t *size) { *size = sizeof(INITRD_BUNDLE) - 1; return &INITRD_BUNDLE[0]; }\n"
}

// TestParseCompiledLibraries builds libraries as upstream does, of both ABIs
// and at every optimisation, and reads them without running them.
func TestParseCompiledLibraries(t *testing.T) {
	cc, dir := gcc(t), t.TempDir()
	var digests [][32]byte
	type variant struct {
		static string
		args   int
		flags  string
	}
	variants := []variant{{"", 2, "-O0"}, {"", 3, "-O2"}, {"static", 3, "-O0"}, {"static", 3, "-O0 -Wl,-z,pack-relative-relocs"},
		{"", 3, "-O2 -Wl,-z,now -Wl,--hash-style=both"}}
	if os.Getenv("CCRUN_LONG") != "" {
		variants = append(variants, []variant{{"", 3, "-O0"}, {"", 3, "-O1"}, {"", 2, "-O2"}, {"", 3, "-O3"}, {"", 3, "-Os"},
			{"static", 3, "-O2"}, {"const", 3, "-O2"}, {"", 3, "-O0 -fcf-protection=none"},
			{"", 3, "-O0 -fomit-frame-pointer"}, {"", 3, "-O2 -fvisibility=default -Wl,-Bsymbolic"},
			{"", 3, "-O0 -Wl,--hash-style=sysv"}, {"", 3, "-O1 -s -Wl,-z,noseparate-code"}, {"", 3, "-O0 -Wl,-z,pack-relative-relocs"}}...)
	}
	for i, v := range variants {
		src, lib := filepath.Join(dir, fmt.Sprintf("%d.c", i)), filepath.Join(dir, fmt.Sprintf("%d.so", i))
		writeFile(t, src, []byte(cBundle(v.static, v.args)))
		args := append(strings.Fields(v.flags), "-w", "-fPIC", "-shared", "-Wl,-soname,libkrunfw-sev.so.5", "-o", lib, src)
		run(t, cc, args...)
		b, err := Load(lib)
		if err != nil {
			t.Errorf("%+v: %v", v, err)
			continue
		}
		if !bytes.Equal(b.Kernel, noise(2, 2*PageBytes)) || !bytes.Equal(b.QBoot, noise(1, QBootBytes)) ||
			!bytes.Equal(b.Initrd, noise(3, PageBytes)) || b.KernelLoad != 0x1000000 {
			t.Errorf("%+v: payloads differ", v)
		}
		if want := uint64(16779683); v.args == 3 && b.KernelEntry != want {
			t.Errorf("%+v: entry %#x, want %#x", v, b.KernelEntry, want)
		}
		digests = append(digests, b.Digest)
	}
	for _, d := range digests {
		if d != digests[0] {
			t.Error("the digest depends on how the library was compiled")
		}
	}
}

// TestParseRefusesWhatItDoesNotUnderstand compiles functions that compute
// their answer, or libraries that change it when loaded.
func TestParseRefusesWhatItDoesNotUnderstand(t *testing.T) {
	cc, dir := gcc(t), t.TempDir()
	good := cBundle("", 3)
	for name, edit := range map[string]func(string) string{
		"calls another function": func(s string) string {
			return strings.Replace(s, "{ *load_addr", "{ extern int getpid(void); getpid(); *load_addr", 1)
		},
		"branches": func(s string) string {
			return strings.Replace(s, "{ *load_addr", "{ if (*size) *size = 0; else *load_addr", 1)
		},
		"reads a variable": func(s string) string {
			return strings.Replace(s, "*load_addr = 16777216", "static volatile size_t v = 16777216; *load_addr = v", 1)
		},
		"no size": func(s string) string {
			return strings.Replace(s, "*size = sizeof(QBOOT_BUNDLE) - 1;", "", 1)
		},
		"size beyond the file": func(s string) string {
			return strings.Replace(s, "sizeof(KERNEL_BUNDLE) - 1", "1UL << 40", 1)
		},
		"qboot too short": func(s string) string {
			return strings.Replace(s, "sizeof(QBOOT_BUNDLE) - 1", "4096", 1)
		},
		"not page sized": func(s string) string {
			return strings.Replace(s, "sizeof(KERNEL_BUNDLE) - 1", "sizeof(KERNEL_BUNDLE)", 1)
		},
		"relocated payload": func(s string) string {
			return s + "\nvoid *table[8192] = { &table[0] };\n" +
				"char *krunfw_get_other(void) { return 0; }\n" +
				"#define krunfw_get_initrd other\n"
		},
		"no qboot function": func(s string) string { return strings.ReplaceAll(s, "krunfw_get_qboot", "krunfw_put_qboot") },
	} {
		src, lib := filepath.Join(dir, "x.c"), filepath.Join(dir, "x.so")
		text := edit(good)
		if name == "relocated payload" {
			text = strings.Replace(text, "sizeof(INITRD_BUNDLE) - 1; return &INITRD_BUNDLE[0]", "65536; return (char *)table", 1)
			text = "extern void *table[8192];\n" + text
		}
		if text == good {
			t.Fatalf("%s: the edit changed nothing", name)
		}
		writeFile(t, src, []byte(text))
		run(t, cc, "-w", "-O1", "-fPIC", "-shared", "-o", lib, src)
		if b, err := Load(lib); err == nil {
			t.Errorf("%s: accepted, digest %x", name, b.Digest)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

func writeFile(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
}

func FuzzParseLibrary(f *testing.F) {
	b := testBundle(f)
	b.Kernel = b.Kernel[:BundleAlign]
	lib, err := BuildLibrary(b, make([]byte, PageBytes))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(lib[:payloadAddr])
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, head []byte) {
		// Payloads of zeros behind the fuzzed headers keep inputs small.
		file := append(bytes.Clone(head), make([]byte, 4*BundleAlign)...)
		if b, err := ParseLibrary(file); err == nil {
			if b.Digest == [32]byte{} || len(b.QBoot) != QBootBytes || b.Digest == sha256.Sum256(nil) {
				t.Fatal("accepted a bundle that is not whole")
			}
		}
	})
}
