package registry

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http/httptrace"
	"sync"
	"time"
)

// stallBytes have to arrive within Patience.Stall.
const stallBytes = 64 << 10

// watchdog ends connections on which nothing comes.
//
// It makes them look as if the registry had hung up, because that is what
// containers/image knows to recover from: it asks for the rest of a blob, by
// Range, with its own credentials and from the mirror it has chosen. The
// library lets nobody choose its transport or set a timeout in it.
type watchdog struct {
	stall  time.Duration
	answer time.Duration // how long the answer to a request may take
	push   bool          // the registry has to take bytes, not to send them
	timer  *time.Timer
	spent  time.Duration // waited for less than stallBytes
	got    int64

	mu     sync.Mutex
	conn   net.Conn
	hungUp int
}

// watch makes what is asked for under the context returned subject to a
// watchdog.
func watch(ctx context.Context, stall time.Duration) (context.Context, *watchdog) {
	w := &watchdog{stall: stall, answer: stall}
	w.timer = time.AfterFunc(stall, w.hangUp)
	w.timer.Stop() // connecting has a timeout of its own
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(i httptrace.GotConnInfo) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.conn = i.Conn
		},
		WroteRequest:         func(httptrace.WroteRequestInfo) { w.timer.Reset(w.answer) },
		GotFirstResponseByte: func() { w.timer.Reset(w.stall) },
	}), w
}

// pushAnswer is how many times Patience.Stall a registry may take to answer: it
// may be hashing what it was sent, or moving it to where it keeps it.
const pushAnswer = 5

// watchPush is watch for what sends to a registry.
func watchPush(ctx context.Context, stall time.Duration) (context.Context, *watchdog) {
	watched, w := watch(ctx, stall)
	w.push, w.answer = true, pushAnswer*stall
	return watched, w
}

// read reads with the clock running. It does not run while nobody reads.
func (w *watchdog) read(r io.Reader, p []byte) (int, error) {
	start, before := time.Now(), w.hangUps()
	w.timer.Reset(w.stall - w.spent)
	n, err := r.Read(p)
	w.timer.Stop()
	w.spent += time.Since(start)
	w.got += int64(n)
	if w.got >= stallBytes || w.hangUps() > before {
		w.spent, w.got = 0, 0
	}
	return n, err
}

// write writes with the clock running.
func (w *watchdog) write(to io.Writer, p []byte) (int, error) {
	w.timer.Reset(w.stall)
	defer w.timer.Stop()
	return to.Write(p)
}

// attribute says of the end of a connection that it was the watchdog's doing.
func (w *watchdog) attribute(err error) error {
	if err == nil || w.hangUps() == 0 || !isHangUp(err) {
		return err
	}
	return fmt.Errorf("%w within %v: %w", errStalled, w.stall, err)
}

// stop lets the connection be, until it is read or written again.
func (w *watchdog) stop() { w.timer.Stop() }

// hangUps is how many connections it has ended.
func (w *watchdog) hangUps() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hungUp
}

// hangUp ends the connection.
func (w *watchdog) hangUp() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hungUp++
	c := w.conn
	for {
		inner, ok := c.(interface{ NetConn() net.Conn }) // TLS
		if !ok {
			break
		}
		c = inner.NetConn()
	}
	half, ok := c.(interface{ CloseRead() error })
	switch {
	case c == nil:
	case ok && !w.push:
		_ = half.CloseRead() // a read that waits gets io.EOF
	default:
		_ = c.Close()
	}
}

// watchedWriter writes what the registry has to take in time.
type watchedWriter struct {
	w     io.Writer
	guard *watchdog
	err   error
}

// Write implements io.Writer.
func (w *watchedWriter) Write(p []byte) (n int, err error) {
	n, w.err = w.guard.write(w.w, p)
	return n, w.err
}
