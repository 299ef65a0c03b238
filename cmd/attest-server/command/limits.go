package command

import (
	"cmp"
	"fmt"
	"syscall"

	"github.com/ccrun/ccrun/attest-server/answer"
)

// otherFiles is how many files a server needs beside its guests' connections:
// its database's, its log, sockets, and what is read again on SIGHUP.
const otherFiles = 64

// withinFiles lowers how many connections l allows to what this process may
// open: a server that has no file left for its database can attest nobody.
func withinFiles(l answer.RateLimits) (answer.RateLimits, error) {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return l, fmt.Errorf("reading how many files the process may open: %w", err)
	}
	l.Connections = fewerThan(files.Cur, cmp.Or(l.Connections, answer.DefaultConnections))
	return l, nil
}

// fewerThan is as many of most connections as there is room for among files.
func fewerThan(files uint64, most int) int {
	if files >= uint64(most)+otherFiles {
		return most
	}
	return max(1, int(files)-otherFiles)
}
