package witness

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// maxProof is as long as a consistency proof may be, and maxAdd a request.
const (
	maxProof = 63
	maxAdd   = checkpoint.MaxBytes + 64*(maxProof+1)
)

var errRequest = errors.New("not a request to add a checkpoint")

// addRequest is a request to add a checkpoint.
type addRequest struct {
	old   int64
	proof []tlog.Hash
	note  []byte
}

// parseAdd reads what formatAdd has written.
func parseAdd(b []byte) (q addRequest, err error) {
	head, note, ok := strings.Cut(string(b), "\n\n")
	if !ok || len(b) > maxAdd {
		return q, fmt.Errorf("%w: no checkpoint in it", errRequest)
	}
	lines := strings.Split(head, "\n")
	text, ok := strings.CutPrefix(lines[0], "old ")
	if q.old, err = strconv.ParseInt(text, 10, 64); !ok || err != nil || q.old < 0 || strconv.FormatInt(q.old, 10) != text {
		return q, fmt.Errorf("%w: line %.40q, expected the old size", errRequest, lines[0])
	}
	if len(lines)-1 > maxProof {
		return q, fmt.Errorf("%w: a proof of %d hashes, expected at most %d", errRequest, len(lines)-1, maxProof)
	}
	for _, line := range lines[1:] {
		h, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil || len(h) != tlog.HashSize {
			return q, fmt.Errorf("%w: line %.60q, expected a hash in base64", errRequest, line)
		}
		q.proof = append(q.proof, tlog.Hash(h))
	}
	q.note = []byte(note)
	return q, nil
}
