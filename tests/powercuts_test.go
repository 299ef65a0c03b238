package tests

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/tests/diskcase"
)

const (
	cutVolumeBytes = 128 << 20
	cutsInBoot     = 20 // a disk each
	cutsInSoak     = 15 * cutsInBoot
)

// TestPowerCuts writes to a volume in one guest, and keeps in order what reached
// the disk; then cuts that off anywhere, with what was not flushed there or not,
// sector by sector; and in another guest every one of these volumes opens and has
// each file that the first guest's workload was told is there to stay.
func TestPowerCuts(t *testing.T) {
	endToEnd(t)
	m, dir := newInteropMachine(t), t.TempDir()
	written := cutDisk(t, filepath.Join(dir, "written"), "written", diskcase.VolumeWrites)
	seed := cutDisk(t, filepath.Join(dir, "seed"), "seed", diskcase.Refused)
	truncate(t, seed.path, cutVolumeBytes)
	if out, err := exec.Command(systemTool(t, "mkfs.btrfs"), "-q", "--csum", "sha256", "-m", "single", "-d", "single", seed.path).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	written.Seed, written.log = "seed", filepath.Join(dir, "log")
	write(t, written.log, nil)
	seed.part = true
	report := m.boot(t, simProcessor, []*interopDisk{written, seed})
	report.want(t, "written")
	log := readWriteLog(t, written.log)
	cuts := cutsInBoot
	if soaking() {
		cuts = cutsInSoak
	}
	random := rand.New(rand.NewPCG(uint64(os.Getpid()), 0))
	for done := 0; done < cuts; done += cutsInBoot {
		m.readCuts(t, dir, log, random)
		if t.Failed() {
			return
		}
	}
	t.Logf("soak: %d power cuts in %d writes and %d flushes", cuts, len(log.writes), log.flushes)
}

func cutDisk(t *testing.T, path, name string, expect diskcase.Expect) *interopDisk {
	t.Helper()
	g, err := luks.NewGeometry(interopUUID, cutVolumeBytes, luks.AESXTS, true)
	if err != nil {
		t.Fatal(err)
	}
	v, err := luks.VolumeGeometry(g, cutVolumeBytes)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, nil)
	truncate(t, path, v.TotalBytes()+diskcase.MarkBytes)
	return &interopDisk{path: path, Case: diskcase.Case{Name: name, Serial: name, Geometry: g, Expect: expect}}
}

// readCuts makes some cuts, and has a guest read what they leave.
func (m *interopMachine) readCuts(t *testing.T, dir string, log *writeLog, random *rand.Rand) {
	t.Helper()
	var disks []*interopDisk
	for i := range cutsInBoot {
		d := cutDisk(t, filepath.Join(dir, fmt.Sprint("cut", i)), fmt.Sprint("cut", i), diskcase.VolumeReads)
		at := log.first + random.IntN(len(log.writes)-log.first)
		d.Acknowledged = log.cut(t, d.path, at, random)
		d.Name = fmt.Sprintf("after %d writes, %d files acknowledged", at, d.Acknowledged)
		d.Name += fmt.Sprintf(" (%d)", i)
		disks = append(disks, d)
	}
	report := m.boot(t, simProcessor, disks)
	for _, d := range disks {
		if r, ok := report.results[d.Name]; !ok || r.Error != "" {
			t.Errorf("%s: %+v%s", d.Name, r, report.takeConsole())
		}
	}
}

// loggedWrite is one of the guest's; a flush has no bytes.
type loggedWrite struct {
	at    int64
	bytes []byte
}

// writeLog is what a guest wrote, in order.
type writeLog struct {
	writes  []loggedWrite
	flushes int
	first   int // the first that is after a mark
}

// readWriteLog reads the format of linux, drivers/md/dm-log-writes.c, that QEMU's
// blklogwrites writes: a sector with the magic, and for each write one that says
// where and how much, and the data.
func readWriteLog(t *testing.T, path string) *writeLog {
	t.Helper()
	const sector, magic, flush, mark = 512, 0x6a736677736872, 1, 8
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	if len(b) < sector || le.Uint64(b) != magic || le.Uint32(b[24:]) != sector {
		t.Fatalf("no log of writes: %d bytes", len(b))
	}
	log := &writeLog{}
	for b = b[sector:]; len(b) >= sector; {
		at, n, flags := le.Uint64(b), le.Uint64(b[8:])*sector, le.Uint64(b[16:])
		if b = b[sector:]; n > uint64(len(b)) || at == 0 && n == 0 && flags == 0 {
			break
		}
		if flags&flush != 0 {
			log.writes, log.flushes = append(log.writes, loggedWrite{}), log.flushes+1
		}
		if n > 0 && flags&mark == 0 {
			log.writes = append(log.writes, loggedWrite{int64(at) * sector, b[:n]})
			if files, ok := diskcase.ParseMark(b); ok && files == 1 {
				log.first = len(log.writes)
			}
		}
		b = b[n:]
	}
	if log.first == 0 || log.flushes < diskcase.VolumeFiles {
		t.Fatalf("%d writes, %d flushes, the first mark after %d", len(log.writes), log.flushes, log.first)
	}
	return log
}

// cut writes to path what a disk has when its power goes after so many writes: all
// that was flushed, and of the rest any sector or none. It returns how many files
// had been acknowledged.
func (l *writeLog) cut(t *testing.T, path string, end int, random *rand.Rand) (acknowledged int) {
	t.Helper()
	flushed := 0
	for i, w := range l.writes[:end] {
		if w.bytes == nil {
			flushed = i
		}
		if files, ok := diskcase.ParseMark(w.bytes); ok {
			acknowledged = files
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range l.writes[:end] {
		if i < flushed && err == nil {
			_, err = f.WriteAt(w.bytes, w.at)
		}
		if i > flushed && err == nil {
			err = w.tear(f, random)
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return acknowledged
}

// tear writes some of the sectors.
func (w *loggedWrite) tear(f io.WriterAt, random *rand.Rand) error {
	const sector = 512
	for n := 0; n < len(w.bytes); n += sector {
		if random.IntN(2) == 0 {
			if _, err := f.WriteAt(w.bytes[n:n+sector], w.at+int64(n)); err != nil {
				return err
			}
		}
	}
	return nil
}
