package tests

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/krun/firmware"
	"github.com/ccrun/ccrun/luks/lukstest"
)

// hexWord is what a traceback, an oops or a dump of registers prints of memory.
var hexWord = regexp.MustCompile(`0x[0-9a-f]+|\b[0-9a-f]{16,}\b`)

// hostLine is what the machine itself logs, which is the host's own.
var hostLine = regexp.MustCompile(`(?m)^time=.*$`)

// hostileHeaders are LUKS2 headers that a host writes over an image's own. With
// each the first keyslot still opens, and then does not fit the digest, so that
// a guest that tries several computes with its DiskKey what the host chose.
func hostileHeaders() map[string]func(m map[string]any, diskBytes int64) {
	return map[string]func(m map[string]any, diskBytes int64){
		"1 GiB of argon2": func(m map[string]any, _ int64) {
			addKeyslots(m, 1)
			kdf := headerPart(m, "keyslots", "1", "kdf")
			headerPart(m, "keyslots", "1")["kdf"] = map[string]any{"type": "argon2id", "salt": kdf["salt"], "time": 1, "memory": 1 << 20, "cpus": 1}
		},
		"all keyslots that fit": manyKeyslots,
		"sha512": func(m map[string]any, _ int64) {
			addKeyslots(m, 1)
			for _, slot := range []string{"0", "1"} {
				headerPart(m, "keyslots", slot, "kdf")["hash"] = "sha512"
				headerPart(m, "keyslots", slot, "af")["hash"] = "sha512"
			}
		},
		"dear digest": func(m map[string]any, _ int64) { headerPart(m, "digests", "0")["iterations"] = 1 << 24 },
	}
}

func headerPart(m map[string]any, path ...string) map[string]any {
	for _, p := range path {
		m = m[p].(map[string]any)
	}
	return m
}

// manyKeyslots takes the room for up to 32 from the data, which lie where the
// identity says.
func manyKeyslots(m map[string]any, diskBytes int64) {
	const first, each = 32 << 10, 96 * 4000 >> 12 << 12
	room := min(16<<20, diskBytes>>20<<20-1<<20)
	headerPart(m, "config")["keyslots_size"] = fmt.Sprint(room - first)
	headerPart(m, "segments", "0")["offset"] = fmt.Sprint(room)
	addKeyslots(m, int(min(31, (room-first)/(each+4096)-1)))
}

// addKeyslots adds n copies of keyslot 0, and spoils the digest.
func addKeyslots(m map[string]any, n int) {
	slots, digest := headerPart(m, "keyslots"), headerPart(m, "digests", "0")
	names := []string{"0"}
	var at, size int64
	area := headerPart(slots, "0", "area")
	_, _ = fmt.Sscan(area["offset"].(string), &at)
	_, _ = fmt.Sscan(area["size"].(string), &size)
	for i := 1; i <= n; i++ {
		raw, _ := json.Marshal(slots["0"])
		var k map[string]any
		_ = json.Unmarshal(raw, &k)
		k["area"].(map[string]any)["offset"] = fmt.Sprint(at + size*int64(i))
		names = append(names, fmt.Sprint(i))
		slots[names[i]] = k
	}
	digest["keyslots"] = names
	b, _ := base64.StdEncoding.DecodeString(digest["digest"].(string))
	b[0] ^= 1
	digest["digest"] = base64.StdEncoding.EncodeToString(b)
}

// rewriteHeader changes the disk's metadata as the host can.
func rewriteHeader(t *testing.T, disk string, change func(m map[string]any, diskBytes int64)) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	head := make([]byte, 32<<10)
	if _, err := f.ReadAt(head, 0); err != nil {
		t.Fatal(err)
	}
	head = lukstest.Rewrite(t, head, func(metadata []byte) []byte {
		var m map[string]any
		if err := json.Unmarshal(metadata, &m); err != nil {
			t.Fatal(err)
		}
		change(m, info.Size())
		out, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return out
	})
	if _, err := f.WriteAt(head, 0); err != nil {
		t.Fatal(err)
	}
}

// TestHostileHeaders: whatever the host writes into the header, the guest ends
// with a status and a line, and no word that looks like memory is on any console,
// so that no two consoles are equal either. All are refused by one comparison: a
// soak boots the siblings as well, and each three times.
func TestHostileHeaders(t *testing.T) {
	w := newWorld(t)
	const secret = "the-workload-ran"
	image := w.build("headers", shell("echo "+secret))
	headers, boots := hostileHeaders(), 3
	if !soaking() {
		delete(headers, "sha512")
		delete(headers, "dear digest")
		boots = 1
	}
	for name, change := range headers {
		t.Run(name, func(t *testing.T) {
			for range boots {
				r := w.tamper(t, image, func(root string) { rewriteHeader(t, filepath.Join(root, "disk.img"), change) })
				out := hostLine.ReplaceAllString(r.stdout+r.stderr, "")
				if r.code != 125 || strings.Contains(out, secret) || strings.Contains(out, "without reporting") ||
					!strings.Contains(out, "ccrun-init: finding the disk: ") {
					t.Fatal(r)
				}
				if words := hexWord.FindAllString(out, -1); len(words) > 0 {
					t.Fatalf("the host reads %q: %s", words, r)
				}
			}
		})
	}
}

// TestKernelDiesSilently: the death of PID 1 makes the kernel panic, and a kernel
// that may talk prints its registers then, which held what the agent computed
// last. One that was silenced as the agent does it prints nothing.
func TestKernelDiesSilently(t *testing.T) {
	endToEnd(t)
	qemu, err := exec.LookPath("qemu-system-x86_64")
	need(t, err)
	kernel := filepath.Join(os.Getenv("CCRUN_SIM_FIRMWARE"), "vmlinuz")
	_, err = os.Stat(kernel)
	need(t, err)
	dir := t.TempDir()
	initrd := filepath.Join(dir, "initrd")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "init"), "./dyinginit")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the guest's init: %v: %s", err, out)
	}
	elf, err := os.ReadFile(filepath.Join(dir, "init"))
	if err != nil {
		t.Fatal(err)
	}
	segment, err := firmware.AgentSegment(elf)
	if err != nil {
		t.Fatal(err)
	}
	write(t, initrd, segment)
	for mode, loud := range map[string]bool{"loud": true, "silent": false} {
		ctx, cancel := context.WithTimeout(t.Context(), interopTimeout)
		out, err := exec.CommandContext(ctx, qemu, "-nodefaults", "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot",
			"-M", "q35", "-accel", "tcg", "-cpu", simProcessor, "-m", "512", "-kernel", kernel, "-initrd", initrd,
			"-append", "console=ttyS0 loglevel=4 panic=-1 -- "+mode, "-serial", "stdio").CombinedOutput()
		cancel()
		if err != nil {
			t.Fatalf("%s: %v: %s", mode, err, out)
		}
		_, after, died := strings.Cut(string(out), "dying now")
		if !died || (mode == "silent") != strings.Contains(string(out), "silencing the kernel: <nil>") {
			t.Fatalf("%s: %s", mode, out)
		}
		if registers := strings.Contains(after, "RAX: "); registers != loud || !loud && strings.TrimSpace(after) != "" {
			t.Errorf("%s: after the death the host reads %s", mode, after)
		}
	}
}
