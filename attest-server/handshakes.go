package attestserver

import (
	"bytes"
	"log"
	"log/slog"
	"sync"
	"time"
)

// handshakesEvery is how often a TLS handshake that failed is worth a line of
// the log: a proxy that offers too little fails with each request, and so can
// any stranger.
const handshakesEvery = time.Minute

// handshakes is what net/http has to say beside its answers. TLS handshakes
// that failed are the one thing of it that an operator should see.
type handshakes struct {
	log   *slog.Logger
	clock func() time.Time

	mu     sync.Mutex
	next   time.Time
	unsaid int // since the last line
}

func newErrorLog(l *slog.Logger, clock func() time.Time) *log.Logger {
	return log.New(&handshakes{log: l, clock: clock}, "", 0)
}

// Write implements io.Writer for a log.Logger, which calls it line by line.
func (h *handshakes) Write(line []byte) (int, error) {
	what, failed := bytes.CutPrefix(bytes.TrimSpace(line), []byte("http: TLS handshake error from "))
	if !failed || left(what) {
		h.log.Debug(string(bytes.TrimSpace(line)))
		return len(line), nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clock()
	if now.Before(h.next) {
		h.unsaid++
		return len(line), nil
	}
	h.log.Warn("a TLS handshake failed; this server speaks TLS 1.3 alone: does a proxy before it?", "peer", string(what), "others_since", h.unsaid)
	h.next, h.unsaid = now.Add(handshakesEvery), 0
	return len(line), nil
}

// left says whether the peer went away, as whoever only tries the port does.
func left(what []byte) bool {
	for _, end := range []string{": EOF", "connection reset by peer", "i/o timeout", "broken pipe"} {
		if bytes.HasSuffix(what, []byte(end)) {
			return true
		}
	}
	return false
}
