package guest

import (
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
)

// writeSecrets makes the files of rules below root.
func writeSecrets(root string, rules []krun.SecretRule, got kbs.Secrets) error {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	for i, r := range rules {
		v := got[r.Name].Value
		if r.Path == "" || v.Len() == 0 {
			continue
		}
		if err := writeSecret(dir, r.Place(i), r, v.Reveal()); err != nil {
			return fmt.Errorf("writing secret %s: %w", r.Name, err)
		}
	}
	return nil
}

// newSecret is where a file is made before it takes its place, which no reader
// finds empty or half written.
const newSecret = ".at/.new"

func writeSecret(dir *os.Root, place string, r krun.SecretRule, value []byte) (err error) {
	for _, d := range []string{path.Dir(newSecret), path.Dir(place)} {
		if err := dir.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	if err := dir.Remove(newSecret); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(newSecret, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(value)
	if err == nil {
		err = f.Chown(int(r.UID), int(r.GID))
	}
	if err == nil {
		err = f.Chmod(os.FileMode(r.Permissions()))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, dir.Remove(newSecret))
	}
	return dir.Rename(newSecret, place)
}
