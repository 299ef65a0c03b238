package main

import (
	"context"
	"os"

	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/localstore"
)

// completion is what TAB offers besides flags and commands.
func completion() face.Completion {
	return face.Completion{
		Values: map[string][]string{
			"tee": {"snp", "tdx", "sample"}, "fs": {"btrfs", "ext4", "erofs"}, "logs": krun.LogsPolicies(),
			"scratch-damaged": {"replace", "refuse"}, "pull": {"missing", "always", "never", "newer"},
			"runtime": {"krun", "krun-sim"}, "format": {"json"}, "log-level": {"debug", "info", "warn", "error"},
		},
		Names: map[string]func(context.Context) []string{"ID": workloadIDs, "IMAGE": localImages, "CONTEXT": contextNames},
	}
}

// workloadIDs are the workloads of the server that environment or context name.
func workloadIDs(ctx context.Context) []string {
	v, err := withContext(connection{os.Getenv("CCRUN_SERVER"), os.Getenv("CCRUN_CA"), os.Getenv("CCRUN_TOKEN_FILE")})
	if err != nil {
		return nil
	}
	client, err := adminClient(v.server, v.ca, v.tokenFile)
	if err != nil {
		return nil
	}
	list, err := client.List(ctx)
	if err != nil {
		return nil
	}
	var ids []string
	for _, w := range list {
		ids = append(ids, w.WorkloadID)
	}
	return ids
}

// localImages are the names in this machine's container storage.
func localImages(context.Context) []string {
	store, err := localstore.Open()
	if err != nil {
		return nil
	}
	defer store.Free()
	images, err := store.Images()
	if err != nil {
		return nil
	}
	var names []string
	for _, i := range images {
		names = append(names, i.Names...)
	}
	return names
}
