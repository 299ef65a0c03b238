package answer

import (
	"context"
	"crypto/tls"
	"fmt"
	"runtime"
	"time"

	"github.com/ccrun/ccrun/attest-server/budget"
)

// handshakePatience is how long a TLS handshake waits for its turn, and then for
// the peer: a guest gives up by itself after ten seconds, and until then is not
// cut off, however many come with it.
const handshakePatience = 10 * time.Second

func newTurns(most int) *budget.Slots { return budget.NewSlots(2*runtime.GOMAXPROCS(0), most) }

// InTurn is c for connections of a Limiter's Listener. What a handshake costs is
// done for a few at once, in turn by address: guests that come together wait for
// one another, and one address's connections for those of no other's guests. The
// peer's time begins once the server has answered it.
func InTurn(c *tls.Config) *tls.Config {
	c = c.Clone()
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		if own, ok := h.Conn.(*connection); ok {
			if err := own.takeTurn(h.Context()); err != nil {
				return nil, err
			}
		}
		if choose == nil {
			return nil, nil
		}
		return choose(h)
	}
	return c
}

// takeTurn waits until c may be answered.
func (c *connection) takeTurn(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, handshakePatience)
	defer cancel()
	leave, err := c.of.turns.Enter(ctx, c.from.String())
	if err != nil {
		return fmt.Errorf("waiting for a turn to shake hands: %w", err)
	}
	c.leave.Store(&leave)
	return c.Conn.SetDeadline(time.Now().Add(handshakePatience))
}

// endTurn lets the next one in.
func (c *connection) endTurn() {
	if leave := c.leave.Swap(nil); leave != nil {
		(*leave)()
	}
}

// Write implements net.Conn. What is written first is the server's part of the
// handshake.
func (c *connection) Write(b []byte) (int, error) {
	c.endTurn()
	return c.Conn.Write(b)
}
