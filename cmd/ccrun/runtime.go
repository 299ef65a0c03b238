package main

import (
	"path/filepath"

	"github.com/ccrun/ccrun/krun/wrapper"
)

// isRuntime says whether we were called as the OCI runtime.
func isRuntime(argv0 string) bool { return filepath.Base(argv0) == "krun" }

// runtimeMain returns only if it did not become crun.
func runtimeMain(argv []string) int {
	w, err := wrapper.Host(wrapper.ConfigPath)
	if err != nil {
		wrapper.ReportError(argv, err)
		return 1
	}
	return w.Run(argv)
}
