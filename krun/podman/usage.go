package podman

import (
	"context"
	"fmt"

	"github.com/containers/podman/v5/pkg/bindings/containers"

	"github.com/ccrun/ccrun/hint"
)

// Usage is what the processes of a workload's machine take of the host: the VMM,
// and with it the guest's memory as far as it was touched. What goes on inside
// is not the host's to see.
type Usage struct {
	CPUPercent  float64 `json:"cpu_percent"`
	MemoryBytes uint64  `json:"memory_bytes"`
	ReadBytes   uint64  `json:"read_bytes"`
	WriteBytes  uint64  `json:"write_bytes"`
	PIDs        uint64  `json:"pids"`
}

// Usages is the usage of those of ids that run, by id, measured once.
func (s *Service) Usages(ctx context.Context, ids []string) (map[string]Usage, error) {
	found := map[string]Usage{}
	if len(ids) == 0 {
		return found, nil
	}
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	stream := false
	reports, err := containers.Stats(conn, ids, &containers.StatsOptions{Stream: &stream})
	if err != nil {
		return nil, usageError(err)
	}
	for r := range reports {
		if r.Error != nil {
			return nil, usageError(r.Error)
		}
		for _, x := range r.Stats {
			found[x.ContainerID] = Usage{CPUPercent: x.CPU, MemoryBytes: x.MemUsage, ReadBytes: x.BlockInput, WriteBytes: x.BlockOutput, PIDs: x.PIDs}
		}
	}
	return found, nil
}

func usageError(err error) error {
	return hint.With(fmt.Errorf("asking Podman what containers use: %w", err), "without root it takes cgroups v2 (`podman info --format '{{.Host.CgroupsVersion}}'`)")
}
