package witness

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
)

// addPath is the only path of C2SP tlog-witness, and sizeType the type of the
// answer that says what the witness has seen. lastPath is ours: whoever shows a
// checkpoint of a log is shown the last one that the witness has seen.
const (
	addPath  = "/add-checkpoint"
	lastPath = "/last-checkpoint"
	sizeType = "text/x.tlog.size"
)

// Peer is a witness that speaks C2SP tlog-witness
// (https://c2sp.org/tlog-witness), such as another attest-server.
type Peer struct{ *Web }

// Show implements Witness.
func (p Peer) Show(ctx context.Context, log Log, c checkpoint.Signed, first bool) ([]byte, error) {
	if c.Size == 0 {
		return nil, fmt.Errorf("%w: the log is empty", ErrAway)
	}
	// It says where it is, if it is not there.
	old := c.Size
	for range 3 {
		r, err := p.add(ctx, log, c, old)
		if err != nil {
			return nil, err
		}
		switch r.status {
		case http.StatusOK:
			return r.body, nil
		case http.StatusConflict:
			seen, err := r.size()
			switch {
			case err != nil:
				return nil, err
			case seen > c.Size:
				return nil, p.prove(ctx, log, c, fmt.Sprintf("it has seen %d entries, and there are %d", seen, c.Size))
			case seen == old: // that it was asked from: only the root is another
				return nil, p.prove(ctx, log, c, fmt.Sprintf("it has seen other entries, %d of them", seen))
			case seen == 0 && !first:
				return nil, fmt.Errorf("%w: %s", ErrNothing, p.URL)
			}
			old = seen
		case http.StatusUnprocessableEntity:
			return nil, p.prove(ctx, log, c, fmt.Sprintf("%d entries do not begin with the %d that it has seen: %.200q", c.Size, old, r.body))
		case http.StatusNotFound, http.StatusForbidden:
			return nil, fmt.Errorf("%w: it answers %d %.200q: does it know the key of this log, `attest-server audit key`?", ErrAway, r.status, r.body)
		default:
			return nil, r.unexpected("showing a checkpoint")
		}
	}
	return nil, fmt.Errorf("%w: it says each time that it has seen another size", ErrAway)
}

// prove has a witness that contradicts c show the checkpoint that it has seen. Only
// the log can have signed that, so it proves the claim whoever shows it; without it
// a witness could stop the server by a word.
func (p Peer) prove(ctx context.Context, log Log, c checkpoint.Signed, claim string) error {
	r, err := p.do(ctx, http.MethodPost, lastPath, c.Note, checkpoint.MaxBytes)
	switch {
	case err != nil:
	case r.status == http.StatusOK:
		err = extends(ctx, log, c, r.body)
	case r.status == http.StatusNotFound:
		err = errors.New("it does not show checkpoints")
	default:
		err = r.unexpected("showing what it has seen")
	}
	switch {
	case err == nil:
		return fmt.Errorf("%w: it says that %s, and shows a checkpoint that the log extends", ErrUnproven, claim)
	case contradicts(err):
		return err
	}
	return fmt.Errorf("%w: it says that %s: %v", ErrUnproven, claim, err)
}

func (p Peer) add(ctx context.Context, log Log, c checkpoint.Signed, old int64) (reply, error) {
	proof, err := consistency(ctx, log, old, c.Size)
	if err != nil {
		return reply{}, err
	}
	return p.do(ctx, http.MethodPost, addPath, formatAdd(old, proof, c.Note), checkpoint.MaxBytes)
}

// size is what a witness says that it has seen.
func (r reply) size() (int64, error) {
	text := strings.TrimSuffix(string(r.body), "\n")
	n, err := strconv.ParseInt(text, 10, 64)
	if kind, _, _ := strings.Cut(r.kind, ";"); strings.TrimSpace(kind) != sizeType || err != nil || n < 0 || strconv.FormatInt(n, 10) != text {
		return 0, r.unexpected("showing a checkpoint")
	}
	return n, nil
}

// formatAdd is the body of a request to add a checkpoint.
func formatAdd(old int64, proof []tlog.Hash, note []byte) []byte {
	b := fmt.Appendf(nil, "old %d\n", old)
	for _, h := range proof {
		b = append(b, base64.StdEncoding.EncodeToString(h[:])+"\n"...)
	}
	return append(append(b, '\n'), note...)
}
