package crun

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// AddRequest leaves what the container's host asks for (krun.SecretsAnnotation)
// behind the scratch area, where the guest looks for it. Call it before AddScratch,
// and before a volume file takes a copy.
func (s *Spec) AddRequest(diskBytes int64) (err error) {
	asked, ok := s.Annotations[krun.SecretsAnnotation]
	if !ok {
		return nil
	}
	if diskBytes == 0 || s.Root.Readonly {
		return hint.With(fmt.Errorf("annotation %s: there is no scratch area behind which the request could be left", krun.SecretsAnnotation),
			"build the image with --scratch and --secret-allow, and run it without --read-only")
	}
	request, err := krun.EncodeRequest(asked)
	if err != nil {
		return fmt.Errorf("annotation %s: %w", krun.SecretsAnnotation, err)
	}
	root, err := os.OpenRoot(s.RootFS)
	if err != nil {
		return fmt.Errorf("leaving the request for secrets: %w", err)
	}
	defer root.Close()
	f, err := root.OpenFile(krun.DiskFile, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("leaving the request for secrets: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("leaving the request for secrets: /%s is not a regular file", krun.DiskFile), err)
	}
	if _, err := f.WriteAt(request, diskBytes); err != nil {
		return fmt.Errorf("leaving the request for secrets: %w", err)
	}
	return nil
}
