package store

import (
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
)

// Where sealed values belong. Each is tied to all that decides to whom it is
// released: whoever edits that in the database makes the value useless, and
// does not get it.

func valueLocation(name string) []byte { return masterkey.Location("meta", name) }

// cursorLocation is no place: what is sealed for it is handed out.
func cursorLocation(tenant string) []byte { return masterkey.Location("cursor", "audit", tenant) }

// diskKeyLocation ties a DiskKey to the registration's every byte, which is
// another for each version of a workload: a version that is put aside keeps it.
func diskKeyLocation(row string, canonical []byte) []byte {
	return masterkey.Location("workloads", "disk_key", kbs.WorkloadOf(row), string(canonical))
}

func stagedLocation(row, rotation string, canonical []byte) []byte {
	return masterkey.Location("workloads", "staged_key", kbs.WorkloadOf(row), rotation, string(canonical))
}

// volumeLocation ties a volume's key to its workload, whatever versions that has.
// Who hands it out opens the DiskKey too, which is tied to a registration.
func volumeLocation(id, name string) []byte {
	return masterkey.Location("volumes", "sealed", id, name)
}

// resourceLocation ties a value to its name, version and policy.
func resourceLocation(id kbs.ResourceID, version int64, policy []byte) []byte {
	return masterkey.Location("resources", "value", id.Repo, id.Type, id.Tag, strconv.FormatInt(version, 10), string(policy))
}

// configLocation ties a configuration to its workload's id and its version, and
// not to the registration: it stays while that is changed. See readProven.
func configLocation(id string, version int64) []byte {
	return masterkey.Location("configs", "value", id, strconv.FormatInt(version, 10))
}
