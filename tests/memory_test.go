package tests

import (
	"bytes"
	"crypto/mlkem"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

// TestNoKeysInMemory looks through all memory of a VM whose workload runs: no
// DiskKey is in it, raw or in hex, and no private half of a TEEKey. Of the volume
// key there is what the kernel's ciphers need, an AES key at the head of its
// schedule: which shows that the test sees the guest's memory.
func TestNoKeysInMemory(t *testing.T) {
	w := newWorld(t)
	record := filepath.Join(w.dir, "record.json")
	image := w.build("memory", shell("echo up; sleep 1000"), "--no-register", "--record", record)
	w.must("ccrun", "register", record)
	diskKey := recordedKey(t, record)
	w.must("podman", "run", "-d", "--name", "memory", "--runtime", "krun-sim", "--network", "host", image)
	defer w.run("podman", "rm", "-f", "-t", "0", "memory")
	w.awaitLog(t, "memory", "up")
	volumeKey := w.volumeKey(t, image, diskKey)
	pid, err := strconv.Atoi(strings.TrimSpace(w.must("podman", "inspect", "--format", "{{.State.Pid}}", "memory")))
	if err != nil {
		t.Fatal(err)
	}
	found := scanGuest(t, emulator(t, pid), map[string][]byte{
		"DiskKey": diskKey, "DiskKey, half": diskKey[:len(diskKey)/2], "DiskKey in hex": []byte(hex.EncodeToString(diskKey)),
		"VolumeKey": volumeKey, "AES key": volumeKey[:32], "VolumeKey in hex": []byte(hex.EncodeToString(volumeKey)),
	})
	t.Logf("copies in %d MiB: %v", found["MiB"], found)
	for _, name := range []string{"DiskKey", "DiskKey, half", "DiskKey in hex", "VolumeKey", "VolumeKey in hex", "TEEKey"} {
		if found[name] != 0 {
			t.Errorf("%d copies of %s", found[name], name)
		}
	}
	if n := found["AES key"]; n != 1 {
		t.Errorf("%d copies of the cipher's key, expected the kernel's one", n)
	}
}

// TestFindsTEEKeys: a private ML-KEM key is recognised where Go keeps it.
func TestFindsTEEKeys(t *testing.T) {
	k, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	// DecapsulationKey768 is one pointer to what holds d, z and the seed of A.
	inner := *(*unsafe.Pointer)(unsafe.Pointer(k))
	memory := append(make([]byte, 104), unsafe.Slice((*byte)(inner), 128)...)
	runtime.KeepAlive(k)
	if n := countTEEKeys(append(memory, make([]byte, 200)...)); n != 1 {
		t.Errorf("found %d keys where 1 is", n)
	}
	memory[110] ^= 1
	if n := countTEEKeys(memory); n != 0 {
		t.Errorf("found %d keys where none is", n)
	}
}

func recordedKey(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	var r struct {
		DiskKey []byte `json:"disk_key"`
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil || len(r.DiskKey) < 32 {
		t.Fatalf("record has a DiskKey of %d bytes, %v", len(r.DiskKey), err)
	}
	return r.DiskKey
}

// volumeKey is what cryptsetup says the image's disk is encrypted with.
func (w *world) volumeKey(t *testing.T, image string, diskKey []byte) []byte {
	t.Helper()
	cryptsetup := systemTool(t, "cryptsetup")
	layout, keyFile := filepath.Join(w.dir, "memory-layout"), filepath.Join(w.dir, "memory-key")
	w.must("skopeo", "copy", "-q", "containers-storage:"+image, "oci:"+layout)
	disk := filepath.Join(w.dir, "memory.img")
	extractDisk(t, layout, disk)
	write(t, keyFile, diskKey)
	out, err := exec.Command(cryptsetup, "luksDump", "--batch-mode", "--dump-volume-key", "--key-file", keyFile, disk).Output()
	if err != nil {
		t.Fatalf("cryptsetup luksDump: %v", err)
	}
	_, dump, _ := strings.Cut(string(out), "MK dump:")
	text := strings.Join(regexp.MustCompile(`\b[0-9a-f]{2}\b`).FindAllString(dump, -1), "")
	k, err := hex.DecodeString(text)
	if err != nil || len(k) < 64 {
		t.Fatalf("no volume key in cryptsetup's dump: %d bytes, %v", len(k), err)
	}
	return k
}

// emulator is the QEMU among a process and its descendants.
func emulator(t *testing.T, pid int) int {
	t.Helper()
	for all := []int{pid}; len(all) > 0; all = all[1:] {
		name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", all[0]))
		if strings.HasPrefix(string(name), "qemu") {
			return all[0]
		}
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[0]))
		for _, task := range tasks {
			b, _ := os.ReadFile(task)
			for _, f := range strings.Fields(string(b)) {
				if n, err := strconv.Atoi(f); err == nil {
					all = append(all, n)
				}
			}
		}
	}
	t.Fatalf("process %d has no QEMU below it", pid)
	return 0
}

// minGuestBytes is less than any guest's memory, and more than QEMU's heap.
const minGuestBytes = 128 << 20

// scanGuest counts what is in the memory that QEMU gave its guest.
func scanGuest(t *testing.T, pid int, needles map[string][]byte) map[string]int {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	found := map[string]int{}
	for line := range strings.Lines(string(maps)) {
		var start, end int64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &start, &end, &mode); err != nil || !strings.HasPrefix(mode, "rw-") || end-start < minGuestBytes {
			continue
		}
		b := make([]byte, end-start)
		if n, err := memory.ReadAt(b, start); err != nil && err != io.EOF || n < len(b) {
			continue // reserved, not the guest's
		}
		found["MiB"] += len(b) >> 20
		for name, needle := range needles {
			found[name] += bytes.Count(b, needle)
		}
		found["TEEKey"] += countTEEKeys(b)
	}
	if found["MiB"] == 0 {
		t.Fatal("the guest's memory was not found")
	}
	return found
}

// countTEEKeys counts private ML-KEM-768 keys, which Go keeps as d, z and the
// seed of the matrix A: the first half of SHA3-512 over d and the rank, 3
// (FIPS 203, algorithm 13).
func countTEEKeys(memory []byte) (n int) {
	var empty [4096]byte
	for page := 0; page < len(memory); page += len(empty) {
		end := min(page+len(empty), len(memory))
		if bytes.Equal(memory[page:end], empty[:end-page]) {
			continue
		}
		for at := page; at < end && at+96 <= len(memory); at += 8 {
			if !dense(memory[at:at+32]) || !dense(memory[at+64:at+96]) {
				continue
			}
			sum := sha3.Sum512(append(append(make([]byte, 0, 33), memory[at:at+32]...), 3))
			if bytes.Equal(sum[:32], memory[at+64:at+96]) {
				n++
			}
		}
	}
	return n
}

// dense is true of nearly all random bytes, and of little else: it saves hashing.
func dense(b []byte) bool {
	return bytes.Count(b, []byte{0}) <= 2 && bytes.Count(b, []byte{0xff}) <= 2 && bytes.Count(b, b[:1]) <= 3
}
