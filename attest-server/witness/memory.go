package witness

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/bounded"
)

// Memory is what a witness has cosigned last of each log: a file each, replaced
// whole.
type Memory struct {
	dir   string
	guard *os.File // locked while this process is the witness

	mu   sync.Mutex
	logs map[string]*sync.Mutex
}

// OpenMemory makes dir the memory of this process alone.
func OpenMemory(dir string) (*Memory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the witness's memory: %w", err)
	}
	d, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the witness's memory: %w", err)
	}
	if err := syscall.Flock(int(d.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the witness's memory %s, which another process uses: %w", dir, err), d.Close())
	}
	return &Memory{dir: dir, guard: d, logs: map[string]*sync.Mutex{}}, nil
}

// Close lets another process be the witness.
func (m *Memory) Close() error { return m.guard.Close() }

// lock is for a log's origin alone. Only origins with known keys come here.
func (m *Memory) lock(origin string) (unlock func()) {
	m.mu.Lock()
	l := m.logs[origin]
	if l == nil {
		l = new(sync.Mutex)
		m.logs[origin] = l
	}
	m.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (m *Memory) path(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(m.dir, hex.EncodeToString(sum[:])+".checkpoint")
}

// last is the checkpoint cosigned last; the empty tree, without a note, if none was.
func (m *Memory) last(origin string, keys []checkpoint.Verifier, own checkpoint.Verifier) (checkpoint.Signed, error) {
	b, err := bounded.File(m.path(origin), checkpoint.MaxBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return checkpoint.Signed{Checkpoint: checkpoint.Checkpoint{Origin: origin, Root: checkpoint.Tree{}.Root()}}, nil
	}
	if err != nil {
		return checkpoint.Signed{}, fmt.Errorf("reading what was cosigned of log %q: %w", origin, err)
	}
	s, err := checkpoint.Open(b, keys, own)
	if err == nil && (s.Origin != origin || len(s.Cosigned) == 0) {
		err = errors.New("it is of another log, or was not cosigned here")
	}
	if err != nil {
		return checkpoint.Signed{}, fmt.Errorf("reading what was cosigned of log %q in %s: %w", origin, m.path(origin), err)
	}
	return s, nil
}

// keep has a cosigned checkpoint on disk.
func (m *Memory) keep(origin string, note []byte) error {
	f, err := os.CreateTemp(m.dir, ".new-*")
	if err != nil {
		return fmt.Errorf("keeping what was cosigned: %w", err)
	}
	_, err = f.Write(note)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), m.path(origin))
	}
	if err == nil {
		err = syncDir(m.dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keeping what was cosigned: %w", err), removeIfThere(f.Name()))
	}
	return nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
