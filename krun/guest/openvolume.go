package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/secret"
)

// A volume is a BTRFS of its own on dm-crypt and dm-integrity in an area of the
// disk (krun.VolumesOffset), laid out by the identity and encrypted under a key
// that the server keeps. At its top are the directory that the workload sees,
// and beside it, where the workload cannot reach, a file with the volume's
// generation. That is in the file system, not in front of it, because BTRFS's
// trees tie it to everything else: whoever puts back an older state of some
// sectors breaks a checksum or the number of a transaction, and an older state of
// all of them has an older generation.
const (
	volumesDir     = "/volumes"
	volumeData     = "data"
	generationFile = "generation"
	// maxGenerationBytes bounds that file.
	maxGenerationBytes = 4 << 10
	// volumeCloseTimeout bounds what the end of a guest waits for a server.
	volumeCloseTimeout = 5 * time.Second
)

// generationRecord is in generationFile, canonical.
type generationRecord struct {
	Version    int    `json:"version"` // 1
	Workload   string `json:"workload"`
	Volume     string `json:"volume"`
	Generation uint64 `json:"generation"`
}

// An openVolume is one that the server has given the key of. Its exported members
// are what PID 1 needs to close it.
type openVolume struct {
	Name       string
	Slot       int
	Token      string
	Generation uint64 // that it has; 0 before it is mounted

	rule  krun.Volume
	key   secret.Bytes
	next  secret.Bytes // its owner asks for another: see rekeyVolume
	grant kbs.VolumeGrant
}

func (v *openVolume) dir() string  { return filepath.Join(volumesDir, fmt.Sprint(v.Slot)) }
func (v *openVolume) data() string { return filepath.Join(v.dir(), volumeData) }

// mappedName is the device-mapper name.
func (v *openVolume) mappedName() string { return fmt.Sprintf("ccrun-volume-%d", v.Slot) }

// readGeneration is the generation of the volume that is mounted at dir.
func readGeneration(dir, workload, volume string) (uint64, error) {
	raw, err := bounded.File(filepath.Join(dir, generationFile), maxGenerationBytes)
	if err != nil {
		return 0, fmt.Errorf("reading the generation: %w", err)
	}
	var r generationRecord
	if err := kbs.UnmarshalCanonical(raw, &r); err != nil {
		return 0, fmt.Errorf("reading the generation: %w", err)
	}
	if r.Version != 1 || r.Workload != workload || r.Volume != volume || r.Generation == 0 {
		return 0, fmt.Errorf("the volume says that it is %.70s of workload %.70s, generation %d", r.Volume, r.Workload, r.Generation)
	}
	label, err := generationLabel(dir)
	return max(r.Generation, label), err
}

// errVolumeFull says that there is no room for a generation, so that the volume has
// the one that it had.
var errVolumeFull = errors.New("no room for the volume's generation")

// writeGeneration gives the volume that is mounted at dir a generation: it is on
// the disk afterwards. After an error but errVolumeFull it may be, or the one from
// before.
func writeGeneration(dir string, r generationRecord) error {
	raw, err := kbs.Canonical(r)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, generationFile)
	if err = os.WriteFile(path+".new", raw, 0o600); err == nil {
		err = os.Rename(path+".new", path)
	}
	if errors.Is(err, unix.ENOSPC) {
		err = labelGeneration(dir, r.Generation)
	}
	if errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("%w: %w", errVolumeFull, err)
	}
	if err != nil {
		return err
	}
	return syncFilesystem(dir)
}

// A file system that the workload has filled has no room for a file, but has a
// label, which BTRFS keeps in its superblock: whoever puts an older one back puts
// back the whole state that belongs to it. Of file and label the newer one counts.
const (
	generationPrefix = "ccrun generation "
	btrfsGetLabel    = 0x81009431 // BTRFS_IOC_GET_FSLABEL of linux/btrfs.h
	btrfsSetLabel    = 0x41009432 // BTRFS_IOC_SET_FSLABEL
	btrfsLabelBytes  = 256
)

func labelGeneration(dir string, generation uint64) error {
	var label [btrfsLabelBytes]byte
	copy(label[:], generationPrefix+strconv.FormatUint(generation, 10))
	return labelIoctl(dir, btrfsSetLabel, &label)
}

// generationLabel is 0 for a file system without a label.
func generationLabel(dir string) (uint64, error) {
	var label [btrfsLabelBytes]byte
	if err := labelIoctl(dir, btrfsGetLabel, &label); err != nil {
		return 0, fmt.Errorf("reading the volume's label: %w", err)
	}
	text, _, _ := strings.Cut(string(label[:]), "\x00")
	if text == "" {
		return 0, nil
	}
	number, ok := strings.CutPrefix(text, generationPrefix)
	n, err := strconv.ParseUint(number, 10, 64)
	if !ok || err != nil || strconv.FormatUint(n, 10) != number {
		return 0, fmt.Errorf("the volume's label is %.40q", text)
	}
	return n, nil
}

func labelIoctl(dir string, request uintptr, label *[btrfsLabelBytes]byte) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if errno := ioctl(f, request, unsafe.Pointer(label)); errno != 0 {
		return errno
	}
	return nil
}
