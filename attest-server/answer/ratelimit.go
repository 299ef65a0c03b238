package answer

import (
	"cmp"
	"math"
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

// RateLimits bounds what one peer can ask of the server, where the answer over
// it is 429 with Retry-After, and what all of them can use of it at once: 503
// with Retry-After.
type RateLimits struct {
	// PerAddress is for requests and connections of an IPv4 address or an IPv6
	// /64. Default: 100 a second, 1000 at once: many guests can be behind one
	// address.
	PerAddress Rate
	// PerToken is for one token of an owner, and again for all of one tenant.
	// Default: 500 a second, 5000 at once.
	PerToken Rate
	// Exempt is addresses that no limit by address concerns, e.g. a proxy's.
	// nil: loopback.
	Exempt []netip.Prefix
	// MaxAddresses bounds the table, about 200 bytes each. Beyond it, those
	// not seen lately are forgotten, so that somebody with more addresses than
	// this is limited less. Zero: 65536.
	MaxAddresses int
	// BodyBytes bounds the bodies of requests that are being read or answered,
	// in bytes; working on one takes about four times its size. A quarter of it
	// is for bodies up to 64 KiB, and one address gets a quarter. Zero: 32 MiB.
	BodyBytes int64
	// Requests bounds requests under way. Zero: 2048.
	Requests int
	// Connections bounds open connections, and AddressConnections those of one
	// address; four times as many, while they shake hands. Where there are more,
	// idle ones are closed. Zero: 4096 and 512.
	Connections, AddressConnections int
}

// Defaults of RateLimits.
const (
	DefaultBodyBytes          = 32 << 20
	DefaultRequests           = 2048
	DefaultConnections        = 4096
	DefaultAddressConnections = 512
)

// badTokenCost is how many requests a wrong token counts for.
const badTokenCost = 10

// Limiter counts requests by where they come from and by whose token they
// carry. It is safe for concurrent use.
type Limiter struct {
	clock   func() time.Time
	answers Responder
	count   func(by string) // what was refused

	requests    *limiterTable[netip.Prefix] // and connections
	refusals    *limiterTable[netip.Prefix] // answers 429
	tokens      *limiterTable[string]
	exempt      []netip.Prefix
	intake      *intake
	connections *connections
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
		tokens:      newLimiterTable[string](c.PerToken.or(Rate{500, 5000}), most),
		exempt:      c.Exempt,
		intake:      newIntake(cmp.Or(max(c.BodyBytes, 0), DefaultBodyBytes), cmp.Or(max(c.Requests, 0), DefaultRequests)),
		connections: newConnections(cmp.Or(max(c.Connections, 0), DefaultConnections), cmp.Or(max(c.AddressConnections, 0), DefaultAddressConnections)),
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

// address is whose a request or connection is; false if no limit by address
// concerns it.
func (l *Limiter) address(remote string) (netip.Prefix, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Prefix{}, true // not over IP: all of them together
	}
	a := ap.Addr().Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	whole, err := a.Prefix(bits)
	for _, p := range l.exempt {
		if p.Contains(a) {
			return whole, false
		}
	}
	return whole, err == nil
}

// Limit answers 429 to addresses over their rate. Health checks always get
// through. An address that goes on asking, and so has used up its refusals as
// well, loses its connections, and new ones are closed at once (see Listener):
// that is all a flood then costs.
func (l *Limiter) Limit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, counts := l.address(r.RemoteAddr)
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		var wait time.Duration
		if counts {
			wait = l.requests.take(from, l.clock(), 1)
		}
		if wait <= 0 {
			if err := l.intake.serve(next, w, r, from, !counts); err != nil {
				l.answers.Handle(func(http.ResponseWriter, *http.Request) error { return err })(w, r)
			}
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
