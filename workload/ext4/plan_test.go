package ext4

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func TestSameInputSameBytes(t *testing.T) {
	layer := rootfstest.Tar(t, append(rootfstest.Many("d", 3000, 20), shapes["xattrs"]...))
	sum := func(o Options) [32]byte {
		o.FreeBytes = 4096
		l, err := Plan(rootfstest.Tree(t, layer), o)
		if err != nil {
			t.Fatal(err)
		}
		var sums [2][32]byte
		for i := range sums { // a layout can also be written twice
			h := sha256.New()
			if err := l.WriteTo(context.Background(), h); err != nil {
				t.Fatal(err)
			}
			sums[i] = [32]byte(h.Sum(nil))
		}
		if sums[0] != sums[1] {
			t.Error("writing twice gives two images")
		}
		return sums[0]
	}
	o := Options{UUID: testUUID, Journal: true, Time: time.Unix(5, 0)}
	first := sum(o)
	if sum(o) != first {
		t.Error("planning twice gives two images")
	}
	for name, change := range map[string]func(*Options){
		"UUID": func(o *Options) { o.UUID[0]++ }, "seed": func(o *Options) { o.HashSeed[0]++ },
		"label": func(o *Options) { o.Label = "x" }, "time": func(o *Options) { o.Time = time.Unix(6, 0) },
		"journal": func(o *Options) { o.Journal = false },
	} {
		other := o
		change(&other)
		if sum(other) == first {
			t.Errorf("%s changes nothing", name)
		}
	}
}

// Sizes around the places where groups, copies and the journal begin.
func TestSizes(t *testing.T) {
	const mib = 1 << 20
	tree := rootfstest.Tree(t, rootfstest.Tar(t, shapes["small"]))
	for _, size := range []int64{1 * mib, 4 * mib, 8 * mib, 64 * mib, 128*mib - 4096, 128 * mib, 128*mib + 4096, 128*mib + 51*4096,
		128*mib + 52*4096, 129 * mib, 256*mib + 4096, 384 * mib, 384*mib + 60*4096, 1000 * mib, 1024 * mib, 2 << 30, 40 << 30, 300 << 30} {
		t.Run(fmt.Sprint(size/4096), func(t *testing.T) {
			t.Parallel()
			if size > 384*mib+60*4096 && size <= 10<<30 && os.Getenv("CCRUN_LONG") == "" {
				t.Skip("CCRUN_LONG=1 writes gigabytes of zeros")
			}
			if size > 10<<30 {
				if l, err := Plan(tree, Options{SizeBytes: size, UUID: testUUID, Journal: true}); err != nil || l.SizeBytes() != size {
					t.Error(err)
				}
				return
			}
			img, l := writeImage(t, rootfstest.Tree(t, rootfstest.Tar(t, shapes["small"])), Options{SizeBytes: size, Journal: size >= 8*mib})
			if l.SizeBytes() != size {
				t.Errorf("got %d bytes, want %d", l.SizeBytes(), size)
			}
			fsck(t, img)
		})
	}
}

func TestFreeSpace(t *testing.T) {
	body := bytes.Repeat([]byte("x"), 4<<20)
	tree := rootfstest.Tree(t, rootfstest.Tar(t, []rootfstest.File{rootfstest.Regular("a", body)}))
	for _, tc := range []struct{ free, atLeast, atMost int64 }{{0, 4 << 20, 4<<20 + 128<<10}, {1, 4096, 128 << 10}, {10 << 20, 10 << 20, 10<<20 + 128<<10}} {
		l, err := Plan(tree, Options{UUID: testUUID, FreeBytes: tc.free, Journal: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := l.FreeBytes(); got < tc.atLeast || got > tc.atMost {
			t.Errorf("FreeBytes %d: got %d free of %d", tc.free, got, l.SizeBytes())
		}
	}
}

// A file system as small as its content is at most 2.5 % larger, from
// 700 MiB on; all of a small one's overhead is the journal and free space.
func TestOverhead(t *testing.T) {
	t.Parallel()
	for mib, most := range map[int64]float64{5: 2.9, 50: 1.25, 250: 1.045, 700: 1.025, 10240: 1.022} {
		if mib > 1<<10 && os.Getenv("CCRUN_LONG") == "" {
			continue
		}
		l, err := Plan(rootfstest.Tree(t, hollowLayer(t, mib<<20)), Options{UUID: testUUID, Journal: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := float64(l.SizeBytes()) / float64(mib<<20); got > most {
			t.Errorf("%d MiB of content: %.3f times that, expected at most %.3f", mib, got, most)
		}
		if l.FreeBytes() < max(4<<20, mib<<20/100) {
			t.Errorf("%d MiB of content: %d bytes free", mib, l.FreeBytes())
		}
	}
}

// hollow is a layer whose contents are holes of a file.
type hollow string

func (h hollow) Open(context.Context) (io.ReadCloser, error) { return os.Open(string(h)) }

// hollowLayer has a file for each 64 KiB.
func hollowLayer(t *testing.T, size int64) hollow {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tar"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const each = 64 << 10
	for i := range size / each {
		var b bytes.Buffer
		if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprint("f", i), Size: each}); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(b.Bytes(), i*(each+512)); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size/each*(each+512) + 1024); err != nil {
		t.Fatal(err)
	}
	return hollow(f.Name())
}

// The size that an ErrTooSmall names, or a little more for the inodes, does.
func TestTooSmall(t *testing.T) {
	tree := rootfstest.Tree(t, rootfstest.Tar(t, []rootfstest.File{rootfstest.Regular("a", bytes.Repeat([]byte("x"), 20<<20))}))
	_, err := Plan(tree, Options{UUID: testUUID, SizeBytes: 16 << 20})
	if !errors.Is(err, ErrTooSmall) {
		t.Fatalf("got %v, want ErrTooSmall", err)
	}
	var need, got int64
	if _, serr := fmt.Sscanf(err.Error()[strings.Index(err.Error(), "need"):], "need %d bytes, got %d", &need, &got); serr != nil {
		t.Fatal(err)
	}
	img, _ := writeImage(t, tree, Options{SizeBytes: need + 1<<20})
	fsck(t, img)
}

func TestPlanRefuses(t *testing.T) {
	ok := rootfstest.Tar(t, shapes["small"])
	for name, tc := range map[string]struct {
		layer rootfstest.Layer
		o     Options
		want  string
	}{
		"no UUID":         {ok, Options{}, "UUID must not be zero"},
		"label":           {ok, Options{UUID: testUUID, Label: strings.Repeat("l", 17)}, "label"},
		"odd size":        {ok, Options{UUID: testUUID, SizeBytes: 1<<20 + 1}, "multiple of 4096"},
		"negative size":   {ok, Options{UUID: testUUID, SizeBytes: -4096}, "multiple of 4096"},
		"negative free":   {ok, Options{UUID: testUUID, FreeBytes: -1}, "negative"},
		"small journal":   {ok, Options{UUID: testUUID, SizeBytes: 8<<20 - 4096, Journal: true}, "8 MiB for a journal"},
		"tiny":            {ok, Options{UUID: testUUID, SizeBytes: 4096}, "too small"},
		"big attribute":   {rootfstest.Tar(t, []rootfstest.File{rootfstest.Dir("d"), rootfstest.WithXattrs(rootfstest.Regular("d/f", nil), "user.x", strings.Repeat("v", 5000))}), Options{UUID: testUUID}, `"/d/f": attribute "user.x"`},
		"many attributes": {rootfstest.Tar(t, []rootfstest.File{rootfstest.WithXattrs(rootfstest.Regular("f", nil), "user.x", strings.Repeat("v", 3000), "user.y", strings.Repeat("v", 3000))}), Options{UUID: testUUID}, `"/f": attribute "user.y"`},
		"bad ACL":         {rootfstest.Tar(t, []rootfstest.File{rootfstest.WithXattrs(rootfstest.Regular("f", nil), "system.posix_acl_access", "nonsense")}), Options{UUID: testUUID}, `"/f": attribute "system.posix_acl_access": not a POSIX ACL`},
		"file lost+found": {rootfstest.Tar(t, []rootfstest.File{rootfstest.Regular("lost+found", nil)}), Options{UUID: testUUID}, "/lost+found is a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Plan(rootfstest.Tree(t, tc.layer), tc.o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestSourceChanged(t *testing.T) { rootfstest.Plan(planned).SourceChanged(t) }

func TestWriteErrors(t *testing.T) { rootfstest.Plan(planned).WriteErrors(t, shapes["content"], 5<<20) }

func TestTimesOutOfRange(t *testing.T) {
	for _, tc := range []struct {
		sec       int64
		lo, extra uint32
	}{{0, 0, 0}, {-1, 0xffffffff, 0}, {-1 << 31, 0x80000000, 0}, {-1 << 40, 0x80000000, 0}, {1 << 31, 0x80000000, 1},
		{1 << 32, 0, 1}, {15032385535, 0x7fffffff, 3}, {1 << 50, 0x7fffffff, 3}} {
		b := make([]byte, 8)
		putTime(b, 0, 4, time.Unix(tc.sec, 0))
		want := []byte{byte(tc.lo), byte(tc.lo >> 8), byte(tc.lo >> 16), byte(tc.lo >> 24), byte(tc.extra), 0, 0, 0}
		if !bytes.Equal(b, want) {
			t.Errorf("%d: got %x, want %x", tc.sec, b, want)
		}
	}
}

// Hashes as debugfs computes them, over lengths around its 32-byte rounds.
func TestHashLikeDebugfs(t *testing.T) {
	img, _ := writeImage(t, rootfstest.Tree(t, rootfstest.Tar(t, nil)), Options{})
	seed := [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	for _, s := range [][16]byte{{}, seed} {
		for _, n := range []int{1, 3, 4, 31, 32, 33, 63, 64, 65, 255} {
			name := strings.Repeat("aZ9_-", 52)[:n]
			arg := fmt.Sprintf("dx_hash -h half_md4 -s %x-%x-%x-%x-%x %s", s[:4], s[4:6], s[6:8], s[8:10], s[10:], name)
			major, minor := hashName(s, name)
			want := fmt.Sprintf("0x%x (minor 0x%x)", major, minor)
			if got := debugfs(t, img, arg); !strings.Contains(got, want) {
				t.Errorf("%d bytes: got %s, debugfs says %s", n, want, got)
			}
		}
	}
}

func TestPlanRefusesTooManyLinks(t *testing.T) {
	if os.Getenv("CCRUN_LONG") == "" {
		t.Skip("CCRUN_LONG=1 makes tens of thousands of names")
	}
	links := []rootfstest.File{rootfstest.Regular("a", nil)}
	for i := range maxLinks {
		links = append(links, rootfstest.File{Header: tar.Header{Name: fmt.Sprint("l", i), Typeflag: tar.TypeLink, Linkname: "a"}})
	}
	_, err := Plan(rootfstest.Tree(t, rootfstest.Tar(t, links)), Options{UUID: testUUID})
	if err == nil || !strings.Contains(err.Error(), "65001 hard links") {
		t.Errorf("got %v, want an error that counts the links", err)
	}
}
