package answer

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
)

// connections are those that are open, bounded in all and by address. Where
// there is no room for another, one is closed that waits for nothing: whoever
// keeps connections open and asks nothing keeps nobody out.
type connections struct {
	max, perAddress int

	mu    sync.Mutex
	count uint64 // of changes, which puts idle ones in order
	open  map[*connection]struct{}
	by    map[netip.Prefix]int
}

func newConnections(most, perAddress int) *connections {
	return &connections{max: most, perAddress: perAddress, open: map[*connection]struct{}{}, by: map[netip.Prefix]int{}}
}

// connection is an open one.
type connection struct {
	net.Conn
	of    *connections
	from  netip.Prefix
	busy  bool   // a request is under way
	since uint64 // what it was when it last became so or idle
}

// Close implements net.Conn.
func (c *connection) Close() error {
	c.of.mu.Lock()
	c.of.drop(c)
	c.of.mu.Unlock()
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
	var closed *connection
	switch {
	case !shared && cs.by[from] >= cs.perAddress:
		if closed = cs.idlest(func(c *connection) bool { return c.from == from }); closed == nil {
			cs.mu.Unlock()
			return nil
		}
	case len(cs.open) >= cs.max:
		if closed = cs.idlest(func(*connection) bool { return true }); closed == nil {
			cs.mu.Unlock()
			return nil
		}
	}
	if closed != nil {
		cs.drop(closed)
	}
	cs.count++
	added := &connection{Conn: c, of: cs, from: from, since: cs.count}
	cs.open[added] = struct{}{}
	cs.by[from]++
	cs.mu.Unlock()
	if closed != nil {
		_ = closed.Conn.Close()
	}
	return added
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
	c.busy, c.since = state == http.StateActive, cs.count
}

// number is how many connections are open.
func (cs *connections) number() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.open)
}
