package answer

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"syscall"
)

// Listener is inner without the connections of addresses that flood the
// server: closed before TLS, which costs more than a request. Each connection
// counts as a request.
func (l *Limiter) Listener(inner net.Listener) net.Listener { return &limitedListener{inner, l} }

type limitedListener struct {
	net.Listener
	l *Limiter
}

// Accept implements net.Listener.
func (x *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := x.Listener.Accept()
		if (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) && x.l.connections.makeRoom() {
			continue
		}
		if err != nil {
			return nil, err
		}
		from, counts := x.l.address(c.RemoteAddr().String())
		if !counts || !x.l.flooding(from) {
			if added := x.l.connections.add(c, from, !counts); added != nil {
				return added, nil
			}
		}
		x.l.count("connection")
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // keep nothing of it
		}
		_ = c.Close()
	}
}

// flooding counts a connection, and says whether its address has used up its
// requests and its refusals. One that has used up its requests alone is let in
// to be told so.
func (l *Limiter) flooding(from netip.Prefix) bool {
	now := l.clock()
	return l.requests.take(from, now, 1) > 0 && l.refusals.take(from, now, 1) > 0
}

// ConnState tells the Limiter of its Listeners' connections, as http.Server
// does.
func (l *Limiter) ConnState(c net.Conn, state http.ConnState) { l.connections.changed(c, state) }

// Open is how many connections of its Listeners are open.
func (l *Limiter) Open() int { return l.connections.number() }

// BodyBytes is how much memory is reserved for bodies now.
func (l *Limiter) BodyBytes() int64 { return l.intake.bodies.InUse() }
