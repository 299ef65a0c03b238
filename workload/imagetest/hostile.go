package imagetest

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Hostile is a registry's bad day: for requests whose path holds part, act is
// called with their number, from 1, and says whether it has dealt with it.
type Hostile struct {
	Part, Method string
	Act          func(w http.ResponseWriter, r *http.Request, n int) bool
	N            atomic.Int64
	Ranges       atomic.Int64

	mu   sync.Mutex
	gone chan struct{} // closed when the client has given up the latest request
}

// GiveUp tells the handler of the latest request that its client has left. A
// server that does not read sees nothing of that itself.
func (h *Hostile) GiveUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone != nil {
		close(h.gone)
	}
	h.gone = make(chan struct{})
}

// Hang does nothing until the client has left.
func (h *Hostile) Hang() {
	h.mu.Lock()
	gone := h.gone
	h.mu.Unlock()
	<-gone
}

func (h *Hostile) Front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == h.Method && strings.Contains(r.URL.Path, h.Part) {
			h.GiveUp() // who asks again has
			if r.Header.Get("Range") != "" {
				h.Ranges.Add(1)
			}
			if h.Act(w, r, int(h.N.Add(1))) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Status answers the first so many requests with code.
func Status(times, code int) func(http.ResponseWriter, *http.Request, int) bool {
	return func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n <= times {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(code)
		}
		return n <= times
	}
}

// Reset ends the first so many connections with RST.
func Reset(times int) func(http.ResponseWriter, *http.Request, int) bool {
	return func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n > times {
			return false
		}
		c, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
		return true
	}
}

const Always = 1 << 30

// Sending sends the part of b that a Range asks for, if ranges, and breaks
// off after left bytes of it: at once, or by saying no more until the other
// side hangs up.
func Sending(b []byte, times, left int, ranges, stall bool) func(http.ResponseWriter, *http.Request, int) bool {
	return func(w http.ResponseWriter, r *http.Request, n int) bool {
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && !ranges {
			from = 0
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(b)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
			w.WriteHeader(http.StatusPartialContent)
		}
		if n > times {
			_, _ = w.Write(b[from:])
			return true
		}
		_, _ = w.Write(b[from:min(len(b), from+left)])
		w.(http.Flusher).Flush()
		if stall {
			WaitGone(r)
		}
		panic(http.ErrAbortHandler)
	}
}

// WaitGone waits for the client to leave.
func WaitGone(r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-time.After(20 * time.Second):
	}
}
