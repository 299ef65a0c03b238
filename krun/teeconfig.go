package krun

import (
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Names of the files in a workload image's single layer.
const (
	DiskFile       = "disk.img"
	TEEConfigFile  = "krun-sev.json"
	InitrdFile     = "initrd.img"
	EntrypointFile = "entrypoint"
)

// TEEConfig is what libkrun's krun_set_tee_config_file reads from
// /krun-sev.json and the guest finds again in the disk's footer. libkrun
// demands every member (facts: src/vmm/src/resources.rs).
type TEEConfig struct {
	WorkloadID     string  `json:"workload_id"`
	CPUs           uint8   `json:"cpus"`
	MemoryMiB      uint    `json:"ram_mib"`
	TEE            kbs.TEE `json:"tee"`
	TEEData        string  `json:"tee_data"` // JSON text
	AttestationURL string  `json:"attestation_url"`
}

// MaxMemoryMiB bounds the memory of a machine.
const MaxMemoryMiB = 1 << 20

// Validate checks the shape of the machine: libkrun supports 1 to 8 vCPUs
// (CONFIG_NR_CPUS of its kernel) and more than 128 MiB.
func (c *TEEConfig) Validate() error {
	switch {
	case !kbs.ValidWorkloadID(c.WorkloadID):
		return fmt.Errorf("workload id %q is not valid", c.WorkloadID)
	case c.CPUs < 1 || c.CPUs > 8:
		return fmt.Errorf("%d vCPUs, expected 1 to 8", c.CPUs)
	case c.MemoryMiB <= 128 || c.MemoryMiB > MaxMemoryMiB:
		return fmt.Errorf("%d MiB of memory, expected more than 128 and at most %d", c.MemoryMiB, MaxMemoryMiB)
	case !c.TEE.Valid():
		return fmt.Errorf("TEE %q, expected snp, tdx or sample", c.TEE)
	}
	return nil
}

// Encode is c in canonical JSON: the bytes of /krun-sev.json and the footer.
func (c *TEEConfig) Encode() ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return kbs.Canonical(c)
}
