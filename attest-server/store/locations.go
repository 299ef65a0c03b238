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

// A workload's configuration and the keys of its volumes outlive registrations, so
// they are tied to none. What they are tied to is the workload's incarnation: a
// number drawn when its id is registered, which each of its versions has, sealed
// with that version's registration. Whoever can write the database and register
// an image of his own under the id of a workload that he has deleted there gets
// an incarnation of his own with it, and nothing of the other's opens.
//
// Rows of before there were incarnations have none; they get one when anything of
// theirs is used or changed.
type incarnation string // hex; empty: none

func incarnationLocation(name string, canonical []byte) []byte {
	return masterkey.Location("workloads", "incarnation", kbs.WorkloadOf(name), string(canonical))
}

// volumeLocation ties a volume's key to its workload, whatever versions that has.
// Who hands it out opens the DiskKey too, which is tied to a registration.
func volumeLocation(id, name string, n incarnation) []byte {
	if n == "" {
		return masterkey.Location("volumes", "sealed", id, name)
	}
	return masterkey.Location("volumes", "sealed", id, name, string(n))
}

// resourceLocation ties a value to its name, version and policy.
func resourceLocation(id kbs.ResourceID, version int64, policy []byte) []byte {
	return masterkey.Location("resources", "value", id.Repo, id.Type, id.Tag, strconv.FormatInt(version, 10), string(policy))
}

// configLocation ties a configuration to its workload and its version, and not to
// the registration: it stays while that is changed. See readProven.
func configLocation(id string, version int64, n incarnation) []byte {
	if n == "" {
		return masterkey.Location("configs", "value", id, strconv.FormatInt(version, 10))
	}
	return masterkey.Location("configs", "value", id, strconv.FormatInt(version, 10), string(n))
}
