package sbom

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/rootfs"
)

func TestSBOM(t *testing.T) {
	db, err := os.ReadFile("../rpmdb/testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(db))
	if err != nil {
		t.Fatal(err)
	}
	if db, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	b, warnings, err := listFiles(t,
		imagetest.File{Name: "etc/os-release", Content: "NAME=\"Debian GNU/Linux\"\nID=debian\n"},
		imagetest.File{Name: "var/lib/dpkg/status", Content: "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\nDescription: long\n more: of it\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: libc6\nStatus: install ok installed\nVersion: 2:2.36+x\nArchitecture: amd64"},
		imagetest.File{Name: "var/lib/dpkg/status.d/tz", Content: "Package: tzdata\nVersion: 2025\n"},
		imagetest.File{Name: "lib/apk/db/installed", Content: "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:zlib\nV:1.3\n"},
		imagetest.File{Name: "usr/lib/sysimage/rpm/rpmdb.sqlite", Content: string(db)},
		imagetest.File{Name: "usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA", Content: "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\n\nName: not this\nMetadata-Version: 1\n"},
		imagetest.File{Name: "opt/x.egg-info/PKG-INFO", Content: "Metadata-Version: 1.1\nName: old\nVersion: 2\n"},
		imagetest.File{Name: "app/node_modules/left-pad/package.json", Content: `{"name":"left-pad","version":"1.3.0","dependencies":{}}`},
		imagetest.File{Name: "app/node_modules/@babel/core/package.json", Content: `{"name":"@babel/core","version":"7.0.0"}`},
		imagetest.File{Name: "app/node_modules/left-pad/test/package.json", Content: `{"name":"a-test-fixture","version":"1"}`},
		imagetest.File{Name: "app/node_modules/broken/package.json", Content: `{"name":`},
		imagetest.File{Name: "bin/script", Content: strings.Repeat("# no program\n", 10_000), Mode: 0o755},
		imagetest.File{Name: "bin/elf", Content: "\x7fELF\x02\x01\x01" + strings.Repeat("\xff", 100_000), Mode: 0o755},
	)
	if err != nil {
		t.Fatal(err)
	}
	got, warned := imagetest.PURLs(t, b), strings.Join(warnings, "\n")
	want := []string{"pkg:apk/debian/musl@1.2.5-r0?arch=x86_64", "pkg:apk/debian/zlib@1.3", "pkg:deb/debian/bash@5.2-1?arch=amd64",
		"pkg:deb/debian/libc6@2:2.36+x?arch=amd64", "pkg:deb/debian/tzdata@2025", "pkg:npm/%40babel/core@7.0.0", "pkg:npm/left-pad@1.3.0",
		"pkg:pypi/foo-bar@1.0", "pkg:pypi/old@2",
		"pkg:rpm/debian/large@5-6~rc1?arch=x86_64", "pkg:rpm/debian/tiny@1.2-3?arch=noarch&epoch=4"}
	if !slices.Equal(got, want) {
		t.Errorf("packages %v, expected %v", got, want)
	}
	if !strings.Contains(warned, "lacks what 1 unreadable") {
		t.Errorf("warned %q", warned)
	}
}

func TestBrokenPackageLists(t *testing.T) {
	for name, f := range map[string]imagetest.File{
		"rpm": {Name: "var/lib/rpm/Packages", Content: strings.Repeat("x", 100)},
	} {
		if _, _, err := listFiles(t, f); err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tarLayer is a layer in memory.
type tarLayer []byte

func (l tarLayer) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l)), nil
}

// listFiles lists the packages of an image of one layer.
func listFiles(t *testing.T, files ...imagetest.File) ([]byte, []string, error) {
	t.Helper()
	layer := tarLayer(imagetest.Tar(t, files...))
	index, err := rootfs.Scan(t.Context(), bytes.NewReader(layer), rootfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := rootfs.Merge([]rootfs.Layer{layer}, []*rootfs.Index{index}, rootfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	defer imagetest.Empty(t, dir)
	return List(t.Context(), tree, dir, digest.FromString("source"), testTime())
}

func testTime() time.Time { return time.Unix(1_700_000_000, 0) }

func FuzzParagraphs(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\n\nP:b\nV:2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func(io.Reader) ([]softwarePackage, error){parseDpkg, parseAPK, parsePython, parseNPM} {
			list, err := parse(bytes.NewReader(b))
			if err != nil {
				continue
			}
			if out, err := spdx(list, "d", digest.FromString("x"), testTime()); err != nil || !json.Valid(out) {
				t.Fatalf("%v from %q", err, b)
			}
		}
	})
}
