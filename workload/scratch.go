package workload

import (
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"

	"github.com/ccrun/ccrun/workload/scratch"
)

// scratchDir makes one if the destination is local storage: the library
// collects a layer in a named file before it imports it. Nothing else needs
// names for what it keeps for a while.
func (o *Options) scratchDir() (*scratch.Dir, error) {
	scratch.Sweep(o.TempDir)
	o.System.BigFilesTemporaryDir = o.TempDir
	t := alltransports.TransportFromImageName(o.Destination)
	if t != nil && t.Name() != istorage.Transport.Name() {
		return nil, nil
	}
	s, err := scratch.NewDir(o.TempDir)
	if err == nil {
		o.System.BigFilesTemporaryDir = s.Path
	}
	return s, err
}
