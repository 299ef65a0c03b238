package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
)

// workloadUser resolves the process's user in the user database under etc, a
// directory inside the workload's root, once a user or group given by number
// has the line there that Podman adds.
func workloadUser(p *krun.Process, etc string, readOnly bool) (process.Credentials, error) {
	passwd, err := readDatabase(filepath.Join(etc, "passwd"))
	if err != nil {
		return process.Credentials{}, err
	}
	group, err := readDatabase(filepath.Join(etc, "group"))
	if err != nil {
		return process.Credentials{}, err
	}
	missing, err := process.MissingAccounts(p.User, p.WorkingDir, passwd, group)
	if err != nil {
		return process.Credentials{}, err
	}
	add := appendLine
	if readOnly {
		add = coverLine
	}
	if passwd, err = add(filepath.Join(etc, "passwd"), passwd, missing.Passwd); err != nil {
		return process.Credentials{}, err
	}
	if group, err = add(filepath.Join(etc, "group"), group, missing.Group); err != nil {
		return process.Credentials{}, err
	}
	return process.LookUp(p.User, bytes.NewReader(passwd), bytes.NewReader(group))
}

// readDatabase takes a missing file for an empty one.
func readDatabase(path string) ([]byte, error) {
	text, err := bounded.Regular(path, process.MaxDatabase)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return text, err
}

// appendLine adds line to the file at path, which has text, and returns what it
// has then. The file keeps its owner and mode, and its links.
func appendLine(path string, text []byte, line string) ([]byte, error) {
	if line == "" {
		return text, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("adding the image's user: %w", err)
	}
	longer := process.Append(text, line)
	_, err = f.Write(longer[len(text):])
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("adding the image's user: %w", err)
	}
	return longer, nil
}

// coverLine is appendLine where the file cannot be changed.
func coverLine(path string, text []byte, line string) ([]byte, error) {
	if line == "" {
		return text, nil
	}
	longer := process.Append(text, line)
	return longer, coverFile(path, longer)
}
