package main

import "path/filepath"

func isRuntime(argv0 string) bool { return filepath.Base(argv0) == "krun" }

func runtimeMain([]string) int { return 127 }
