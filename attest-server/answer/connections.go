package answer

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/ccrun/ccrun/attest-server/budget"
)

// connections are those that are open, bounded in all and by address. Where
// there is no room for another, one is closed that waits for nothing: whoever
// keeps connections open and asks nothing keeps nobody out. An address may stand
// for a site whose guests come at once: those that have just come, and so shake
// hands, are closed for others of the address only where there are crowd times
// as many.
type connections struct {
	max, perAddress int
	turns           *budget.Slots // of handshakes

	mu    sync.Mutex
	count uint64 // of changes, which puts idle ones in order
	open  map[*connection]struct{}
	by    map[netip.Prefix]int
}

func newConnections(most, perAddress int) *connections {
	return &connections{max: most, perAddress: perAddress, turns: newTurns(most), open: map[*connection]struct{}{}, by: map[netip.Prefix]int{}}
}

// crowd is how many times what one address may keep open it may open at once.
const crowd = 4

// connection is an open one.
type connection struct {
	net.Conn
	of    *connections
	from  netip.Prefix
	fresh bool   // nothing was asked yet
	busy  bool   // a request is under way
	since uint64 // what it was when it last became so or idle
	leave atomic.Pointer[func()]
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	c.of.drop(c)
	c.of.mu.Unlock()
	c.endTurn()
	return c.Conn.Close()
}

func (cs *connections) drop(c *connection) {
	if _, there := cs.open[c]; !there {
		return
	}
	delete(cs.open, c)
	if cs.by[c.from]--; cs.by[c.from] == 0 {
		delete(cs.by, c.from)
	}
}

// add takes a connection in; nil if there is no room. shared says that its
// address stands for many.
func (cs *connections) add(c net.Conn, from netip.Prefix, shared bool) *connection {
	cs.mu.Lock()
	closed, room := cs.room(from, shared)
	if !room {
		cs.mu.Unlock()
		return nil
	}
	if closed != nil {
		cs.drop(closed)
	}
	cs.count++
	added := &connection{Conn: c, of: cs, from: from, fresh: true, since: cs.count}
	cs.open[added] = struct{}{}
	cs.by[from]++
	cs.mu.Unlock()
	if closed != nil {
		_ = closed.Conn.Close()
	}
	return added
}

// room says whether there is any for another connection of an address, and
// which one is to be closed for it.
func (cs *connections) room(from netip.Prefix, shared bool) (closed *connection, ok bool) {
	have := cs.by[from]
	if !shared && have >= cs.perAddress {
		crowded := have >= max(cs.perAddress, min(crowd*cs.perAddress, cs.max/2))
		closed = cs.idlest(func(c *connection) bool { return c.from == from && (crowded || !c.fresh) })
		if closed != nil || crowded {
			return closed, closed != nil
		}
	}
	if len(cs.open) >= cs.max {
		closed = cs.idlest(func(*connection) bool { return true })
		return closed, closed != nil
	}
	return nil, true
}

// idlest is the connection to close: of those that of takes and that wait for
// no answer, the longest idle one of the address that has most.
func (cs *connections) idlest(of func(*connection) bool) (found *connection) {
	for c := range cs.open {
		if c.busy || !of(c) {
			continue
		}
		if found == nil || cs.by[c.from] > cs.by[found.from] || cs.by[c.from] == cs.by[found.from] && c.since < found.since {
			found = c
		}
	}
	return found
}

// makeRoom closes a connection if one is idle.
func (cs *connections) makeRoom() bool {
	cs.mu.Lock()
	c := cs.idlest(func(*connection) bool { return true })
	if c != nil {
		cs.drop(c)
	}
	cs.mu.Unlock()
	return c != nil && c.Conn.Close() == nil
}

// changed is for http.Server.ConnState.
func (cs *connections) changed(conn net.Conn, state http.ConnState) {
	if t, ok := conn.(*tls.Conn); ok {
		conn = t.NetConn()
	}
	c, ok := conn.(*connection)
	if !ok {
		return
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.count++
	c.fresh = c.fresh && state == http.StateNew
	c.busy, c.since = state == http.StateActive, cs.count
}

// number is how many connections are open.
func (cs *connections) number() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}
