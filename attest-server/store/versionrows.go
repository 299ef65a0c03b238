package store

import (
	"context"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// A workload has one row for each of its versions: the newest under its id, those
// before under ID@N. So whatever else is a workload's, and not a version's, goes
// by the id, whose row is there as long as the workload is.

// versionsOf is the condition that a row is of the workload that id, a parameter,
// names. In the order of bytes '@' is followed by 'A', and no id has either
// behind it.
func versionsOf(id string) string {
	return fmt.Sprintf("(id = %[1]s OR (id > %[1]s || '@' AND id < %[1]s || 'A'))", id)
}

// rowOf is the row that an owner's name for a workload, or for one version of it,
// means. It need not be there.
func rowOf(ctx context.Context, from rowQuerier, name string) (string, error) {
	id, version, ok := kbs.SplitVersion(name)
	if !ok {
		return "", fmt.Errorf("workload %s: %w", name, ErrNotFound)
	}
	if version == 0 {
		return id, nil
	}
	var newest bool
	err := from.QueryRowContext(ctx, "SELECT EXISTS(SELECT 1 FROM workloads WHERE id = ? AND version = ?)", id, version).Scan(&newest)
	if newest {
		return id, err
	}
	return name, err
}

// aside says in the audit log which version was meant, if not the newest: the
// object of an entry is always the workload.
func aside(row string) string {
	if _, version, ok := kbs.SplitVersion(row); ok && version > 0 {
		return fmt.Sprintf("version %d", version)
	}
	return ""
}

func asideColon(row string) string {
	if text := aside(row); text != "" {
		return text + ": "
	}
	return ""
}
