package workload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containers/common/pkg/retry"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"
	"github.com/docker/distribution/registry/api/errcode"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
)

// Patience says how long a registry is waited for. The zero value means the
// defaults.
type Patience struct {
	// Stall is how long a registry may take for 64 KiB; then the connection is
	// given up and made anew. Zero: one minute.
	Stall time.Duration
	// Retries bounds attempts, after the first, that get no further. Zero: 3;
	// negative: none.
	Retries int
	// Delay passes between attempts. Zero: 1 s, doubled each time.
	Delay time.Duration
}

// stallBytes have to arrive within Patience.Stall.
const stallBytes = 64 << 10

// progressBytes make an attempt count as one that got further.
const progressBytes = 1 << 20

func (p Patience) withDefaults() Patience {
	if p.Stall <= 0 {
		p.Stall = time.Minute
	}
	switch {
	case p.Retries == 0:
		p.Retries = 3
	case p.Retries < 0:
		p.Retries = 0
	}
	return p
}

type patienceKey struct{}

// WithPatience applies p to what is read from and written to registries under
// the context returned.
func WithPatience(ctx context.Context, p Patience) context.Context {
	return context.WithValue(ctx, patienceKey{}, p)
}

func patienceOf(ctx context.Context) Patience {
	p, _ := ctx.Value(patienceKey{}).(Patience)
	return p.withDefaults()
}

// patienceFor has none with what is on this machine.
func patienceFor(ctx context.Context, ref types.ImageReference) Patience {
	p := patienceOf(ctx)
	if ref.Transport().Name() != docker.Transport.Name() {
		p.Retries = 0
	}
	return p
}

// errStalled reports a registry that has stopped to send or to take bytes.
var errStalled = errors.New("registry does not answer")

func (p Patience) stalled() error {
	return hint.With(fmt.Errorf("%w: less than %d KiB in %v, %d times", errStalled, stallBytes>>10, p.Stall, p.Retries+1),
		"try again later, raise --retry, or name another mirror in registries.conf")
}

// do calls op until it succeeds, fails for good, or has failed too often. op
// must pass on the context it is given, whose connections are watched.
//
// The library retries requests answered with 429 by itself, as Retry-After
// says.
func (p Patience) do(ctx context.Context, op func(context.Context) error) error {
	once := func() error {
		watched, w := p.watch(ctx)
		defer w.rest()
		return w.explain(op(watched))
	}
	err := p.repeat(ctx, once)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// push is do for what the registry has to take, and may take its time to keep.
func (p Patience) push(ctx context.Context, op func(context.Context) error) error {
	err := p.repeat(ctx, func() error {
		watched, w := p.watchPush(ctx)
		defer w.rest()
		return w.explain(op(watched))
	})
	if err != nil && ctx.Err() == nil && mayPass(err) {
		return p.pushFailed(err)
	}
	return err
}

func (p Patience) pushFailed(err error) error {
	return hint.With(fmt.Errorf("pushing failed %d times: %w", p.Retries+1, err), "try again later, or raise --retry")
}

func (p Patience) repeat(ctx context.Context, once func() error) error {
	err := retry.IfNecessary(ctx, once, &retry.Options{MaxRetry: p.Retries, Delay: p.Delay, IsErrorRetryable: mayPass})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// mayPass tells errors of the moment from lasting ones. It is narrower than
// the library's retry.IsErrorRetryable, which also takes "no such blob" and
// "invalid digest" for passing.
func mayPass(err error) bool {
	var codes errcode.Errors
	var code errcode.ErrorCoder
	var status docker.UnexpectedHTTPStatusError
	var answer *transport.Error
	var anew *startAnewError
	var lasting *lastingError
	switch {
	case errors.As(err, &lasting) || errors.Is(err, context.Canceled) || errors.Is(err, blob.ErrDigest):
		return false
	case errors.As(err, &anew) || errors.Is(err, errStalled) || isHangUp(err) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE):
		return true
	case errors.As(err, &answer):
		return passingStatus(answer.StatusCode)
	case errors.As(err, &codes):
		for _, e := range codes {
			if !mayPass(e) {
				return false
			}
		}
		return len(codes) > 0
	case errors.As(err, &code):
		return passingStatus(code.ErrorCode().Descriptor().HTTPStatusCode)
	case errors.As(err, &status):
		return passingStatus(status.StatusCode)
	}
	// This type the library keeps to itself: status 4xx without an error body.
	return strings.Contains(err.Error(), "StatusCode: 429,") || retry.IsErrorRetryable(err)
}

func passingStatus(s int) bool {
	return s == http.StatusTooManyRequests || s == http.StatusRequestTimeout || s >= 500 && s != http.StatusNotImplemented
}

// lastingError is not a matter of the registry.
type lastingError struct{ error }

func (e *lastingError) Unwrap() error { return e.error }

// isHangUp says whether a connection ended early.
func isHangUp(err error) bool {
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

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

	mu   sync.Mutex
	conn net.Conn
	bit  int
}

func (p Patience) watch(ctx context.Context) (context.Context, *watchdog) {
	w := &watchdog{stall: p.Stall, answer: p.Stall}
	w.timer = time.AfterFunc(p.Stall, w.bite)
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

func (p Patience) watchPush(ctx context.Context) (context.Context, *watchdog) {
	watched, w := p.watch(ctx)
	w.push, w.answer = true, pushAnswer*p.Stall
	return watched, w
}

// read reads with the clock running. It does not run while nobody reads.
func (w *watchdog) read(r io.Reader, p []byte) (int, error) {
	start, before := time.Now(), w.bites()
	w.timer.Reset(w.stall - w.spent)
	n, err := r.Read(p)
	w.timer.Stop()
	w.spent += time.Since(start)
	w.got += int64(n)
	if w.got >= stallBytes || w.bites() > before {
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

// explain says of the end of a connection that it was the watchdog's doing.
func (w *watchdog) explain(err error) error {
	if err == nil || w.bites() == 0 || !isHangUp(err) {
		return err
	}
	return fmt.Errorf("%w within %v: %w", errStalled, w.stall, err)
}

func (w *watchdog) rest() { w.timer.Stop() }

// bites is how often it had to.
func (w *watchdog) bites() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bit
}

func (w *watchdog) bite() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bit++
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
