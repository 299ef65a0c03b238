package guest

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/process"
	"github.com/ccrun/ccrun/secret"
)

// readProcess reads what to run from the opened disk and proves that it is
// what the identity, and so the launch measurement, stands for.
func (b *boot) readProcess(context.Context) error {
	fd, err := unix.Open(filepath.Join(newRoot, krun.ProcessPath), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return classed(classConfiguration, fmt.Errorf("opening %s on the disk: %w", krun.ProcessPath, err))
	}
	f := os.NewFile(uintptr(fd), krun.ProcessPath)
	defer func() { _ = f.Close() }()
	raw, err := bounded.Read(f, krun.ProcessPath, process.MaxBytes)
	if err != nil {
		return err
	}
	defer b.processKey.Wipe()
	if b.process, err = decodeProcess(raw, b.processKey, b.identity.ProcessDigest); err != nil {
		return err
	}
	return b.configure()
}

// decodeProcess decodes raw if its digest under the key is want.
func decodeProcess(raw []byte, processKey secret.Bytes, want kbs.Digest) (*krun.Process, error) {
	if got := krun.ProcessDigest(processKey, raw); want.IsZero() || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return nil, classed(classChanged, errors.New("process configuration is not the one that was measured"))
	}
	p, err := process.Decode(raw)
	if errors.Is(err, process.ErrNoCommand) {
		err = &statusError{statusNotFound, err}
	}
	return p, classed(classConfiguration, err)
}

// configure gives the process what the key server has for it.
func (b *boot) configure() error {
	switch {
	case !b.identity.Policy.TakesConfig():
		return b.addSecrets()
	case b.config == nil:
		return classed(classInternal, errNotConfigured)
	}
	b.process.Configure(b.config)
	if err := process.Check(b.process); err != nil {
		return classed(classConfigured, err)
	}
	return b.addSecrets()
}

// addSecrets gives the process its variables. All that it is started with has to
// fit where the image's own does: PID 1 takes no longer answer from the keeper.
func (b *boot) addSecrets() error {
	if p := &b.identity.Policy; len(p.Secrets)+len(p.SecretAllow) == 0 {
		return nil
	}
	if b.secretEnv == nil {
		return classed(classInternal, errNoSecrets)
	}
	for name, value := range b.secretEnv {
		b.process.SetVariable(name, value)
	}
	b.secretEnv = nil
	raw, err := json.Marshal(b.process)
	defer clear(raw)
	if err == nil && len(raw) > process.MaxBytes {
		err = fmt.Errorf("the process has %d bytes of arguments and variables with its secrets, at most %d allowed", len(raw), process.MaxBytes)
	}
	return classed(classSecrets, err)
}

var errNoSecrets = errors.New("the image names secrets, and none were asked for")

var errNotConfigured = errors.New("the image takes a configuration, and none was asked for")
