package answer

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// Rate is how many requests a second, on average, and how many at once. The
// zero value stands for a default, a negative PerSecond for no limit.
type Rate struct {
	PerSecond float64
	Burst     int
}

// RateLimits bounds what one peer can ask of the server. Over it the answer
// is 429 with Retry-After.
type RateLimits struct {
	// PerAddress is for an IPv4 address or an IPv6 /64. Default: 100 a second,
	// 1000 at once: many guests can be behind one address.
	PerAddress Rate
	// PerToken is for one token of an owner, and again for all of one tenant.
	// Default: 500 a second, 5000 at once.
	PerToken Rate
	// Exempt is addresses that PerAddress does not concern, e.g. a proxy's.
	// nil: loopback.
	Exempt []netip.Prefix
	// MaxAddresses bounds the table, about 200 bytes each. Beyond it, those
	// not seen lately are forgotten, so that somebody with more addresses than
	// this is limited less. Zero: 65536.
	MaxAddresses int
}

// badTokenCost is how many requests a wrong token counts for.
const badTokenCost = 10

// Limiter counts requests by where they come from and by whose token they
// carry. It is safe for concurrent use.
type Limiter struct {
	clock   func() time.Time
	answers Responder
	count   func(by string) // what was refused

	requests    *limiterTable[netip.Prefix]
	refusals    *limiterTable[netip.Prefix] // answers 429
	connections *limiterTable[netip.Prefix] // of addresses that have used up both
	tokens      *limiterTable[string]
	exempt      []netip.Prefix
}

// NewLimiter makes a Limiter that tells count what it refuses: a request by
// its address, token or tenant, or a connection.
func NewLimiter(c RateLimits, clock func() time.Time, answers Responder, count func(by string)) *Limiter {
	if c.Exempt == nil {
		c.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	most := c.MaxAddresses
	if most <= 0 {
		most = 1 << 16
	}
	address := c.PerAddress.or(Rate{100, 1000})
	return &Limiter{
		clock: clock, answers: answers, count: count,
		requests:    newLimiterTable[netip.Prefix](address, most),
		refusals:    newLimiterTable[netip.Prefix](Rate{address.PerSecond / 10, address.Burst}, most),
		connections: newLimiterTable[netip.Prefix](Rate{address.PerSecond, max(1, address.Burst/100)}, most),
		tokens:      newLimiterTable[string](c.PerToken.or(Rate{500, 5000}), most),
		exempt:      c.Exempt,
	}
}

func (r Rate) or(def Rate) Rate {
	if r.PerSecond == 0 {
		r.PerSecond = def.PerSecond
		if r.Burst == 0 {
			r.Burst = def.Burst
		}
	}
	if r.Burst <= 0 {
		r.Burst = max(1, int(math.Ceil(min(r.PerSecond, 1<<20))))
	}
	return r
}

// address is whom a request or connection counts for; false if nobody.
func (l *Limiter) address(remote string) (netip.Prefix, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}, true // not over IP: all of them together
	}
	a := ap.Addr().Unmap().WithZone("")
	for _, p := range l.exempt {
		if p.Contains(a) {
			return netip.Prefix{}, false
		}
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// Limit answers 429 to addresses over their rate. Health checks always get
// through. An address that goes on asking, and so has used up its refusals as
// well, loses its connections, and new ones are closed at once (see Listener):
// that is all a flood then costs.
func (l *Limiter) Limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, counts := l.address(r.RemoteAddr)
		if !counts || r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		wait := l.requests.take(from, l.clock(), 1)
		if wait <= 0 {
			next.ServeHTTP(w, r)
			return
		}
		if l.refusals.take(from, l.clock(), 1) > 0 {
			w.Header().Set("Connection", "close") // with HTTP/2, too
		}
		l.answers.Handle(func(http.ResponseWriter, *http.Request) error { return l.refuse("address", wait) })(w, r)
	})
}

func (l *Limiter) refuse(by string, wait time.Duration) error {
	l.count(by)
	return &refusal.Error{Code: kbs.CodeRateLimited, Detail: "too many requests from this " + by, RetryAfter: wait}
}

// Listener is inner without the connections of addresses that flood the
// server: closed before TLS, which costs more than a request.
func (l *Limiter) Listener(inner net.Listener) net.Listener { return &limitedListener{inner, l} }

type limitedListener struct {
	net.Listener
	l *Limiter
}

// Accept implements net.Listener.
func (x *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := x.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, counts := x.l.address(c.RemoteAddr().String())
		if !counts || !x.l.flooding(from) {
			return c, nil
		}
		x.l.count("connection")
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // keep nothing of it
		}
		_ = c.Close()
	}
}

// flooding says whether an address has used up its requests and refusals. As
// soon as it has a request again it gets that many connections, and no more.
func (l *Limiter) flooding(from netip.Prefix) bool {
	now := l.clock()
	return l.refusals.spent(from, now) && (l.requests.spent(from, now) || l.connections.take(from, now, 1) > 0)
}

// Token counts a request with a token, and for the token's tenant if it has
// one.
func (l *Limiter) Token(id, tenant string) error {
	if tenant != "" {
		if wait := l.tokens.take("tenant/"+tenant, l.clock(), 1); wait > 0 {
			return l.refuse("tenant", wait)
		}
	}
	if wait := l.tokens.take("token/"+id, l.clock(), 1); wait > 0 {
		return l.refuse("token", wait)
	}
	return nil
}

// BadToken counts a request with a wrong token as several of its address.
func (l *Limiter) BadToken(r *http.Request) {
	if from, counts := l.address(r.RemoteAddr); counts {
		l.requests.charge(from, l.clock(), badTokenCost)
	}
}

// BadLogins has a handler's 401 count as a wrong token.
func (l *Limiter) BadLogins(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &StatusWriter{ResponseWriter: w, Status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if rec.Status == http.StatusUnauthorized {
			l.BadToken(r)
		}
	})
}
