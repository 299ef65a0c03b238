package command

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/ccrun/ccrun/hint"
)

// claim keeps other servers from the data directory for as long as this one
// lives: sessions are in memory, and of two servers on one SQLite file each
// would refuse the other's guests.
func (d *server) claim() error {
	if d.cfg.Database != "" {
		return nil
	}
	dir, err := os.Open(d.cfg.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // what is missing there is told better by who needs it
	}
	if err != nil {
		return fmt.Errorf("opening the data directory: %w", err)
	}
	d.claimed = dir
	switch err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
	case errors.Is(err, syscall.EWOULDBLOCK):
		return hint.With(fmt.Errorf("data directory %s is in use: another server runs on it, and a store in SQLite is for one", d.cfg.Data),
			"stop that one (systemctl status attest-server; `fuser -v %s`), or name another directory with --data; several servers share a PostgreSQL database", d.cfg.Data)
	case err != nil: // some network file systems have no such locks
		d.log.Warn("cannot keep a second server from the data directory", "data", d.cfg.Data, "error", err)
	}
	return nil
}
