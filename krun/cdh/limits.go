package cdh

import (
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what one workload asks: each question is one to the key server, or to
// a TEE that its host makes wait.
const (
	burst       = 64
	perSecond   = 16
	underWay    = 8
	connections = 256
)

// budget counts questions. The zero value is full.
type budget struct {
	mu    sync.Mutex
	spent float64
	at    time.Time
	now   int
}

// take is one question; done says that it is answered.
func (b *budget) take(at time.Time) (done func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := at.Sub(b.at); passed > 0 {
		b.spent = max(0, b.spent-passed.Seconds()*perSecond)
		b.at = at
	}
	switch {
	case b.now >= underWay:
		return nil, &refusal{http.StatusTooManyRequests, "too many requests are under way", 1}
	case b.spent+1 > burst:
		return nil, &refusal{http.StatusTooManyRequests, "too many requests", 1}
	}
	b.spent++
	b.now++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.now--
	}, nil
}

// Bounded is l with so many connections at once. Further ones are closed at once
// and not left waiting: under TSI a client whose connection is not taken in the
// guest tries the host.
func Bounded(l net.Listener) net.Listener {
	return &boundedListener{Listener: l, room: make(chan struct{}, connections)}
}

type boundedListener struct {
	net.Listener
	room chan struct{}
}

func (l *boundedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &boundedConn{Conn: c, leave: sync.OnceFunc(func() { <-l.room })}, nil
		default:
			_ = c.Close()
		}
	}
}

type boundedConn struct {
	net.Conn
	leave func()
}

func (c *boundedConn) Close() error {
	c.leave()
	return c.Conn.Close()
}
