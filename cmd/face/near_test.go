package face

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := strings.Fields("build run workload ls rm show tee token-file memory volume attest-url")
	for word, want := range map[string]string{
		"biuld": "build", "buld": "build", "builds": "build", "tte": "tee", "Memory": "memory", "work": "workload", "delete": "rm", "list": "ls", "inspect": "show",
		"workloads": "workload", "attest-ulr": "attest-url", "tokenfile": "token-file",
		"zzz": "", "x": "", "": "", "kubernetes": "", "pull": "",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("%q: %q, expected %q", word, got, want)
		}
	}
}
