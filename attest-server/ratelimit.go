package attestserver

import (
	"math"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
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
	// MaxAddresses bounds the table, about 200 bytes each. Who has more
	// addresses than this has his limits forgotten now and then. Zero: 65536.
	MaxAddresses int
}

// badTokenCost is how many requests a wrong token counts for.
const badTokenCost = 10

type limits struct {
	addresses *limiterTable[netip.Prefix]
	refusals  *limiterTable[netip.Prefix] // who is told that it is too fast
	another   *limiterTable[netip.Prefix] // connections of who was told too often
	tokens    *limiterTable[string]
	exempt    []netip.Prefix
}

func newLimits(c RateLimits) *limits {
	if c.Exempt == nil {
		c.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	most := orDefault(c.MaxAddresses, 1<<16)
	address := c.PerAddress.or(Rate{100, 1000})
	return &limits{
		addresses: newLimiterTable[netip.Prefix](address, most),
		refusals:  newLimiterTable[netip.Prefix](Rate{address.PerSecond / 10, address.Burst}, most),
		another:   newLimiterTable[netip.Prefix](Rate{address.PerSecond, max(1, address.Burst/100)}, most),
		tokens:    newLimiterTable[string](c.PerToken.or(Rate{500, 5000}), most),
		exempt:    c.Exempt,
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

// address is whom a request counts for; false if nobody.
func (l *limits) address(r *http.Request) (netip.Prefix, bool) {
	return l.from(r.RemoteAddr)
}

func (l *limits) from(remote string) (netip.Prefix, bool) {
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

// limited answers 429 to addresses over their rate. Health checks always get
// through. Who takes no notice of as many refusals as he has requests is not
// answered any more: his connections end, and new ones are closed at once (see
// Listener), which is all that a flood then costs.
func (s *Server) limited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if from, counts := s.limits.address(r); counts && r.URL.Path != "/healthz" && r.URL.Path != "/readyz" {
			if wait := s.limits.addresses.take(from, s.Clock(), 1); wait > 0 {
				if s.limits.refusals.take(from, s.Clock(), 1) > 0 {
					w.Header().Set("Connection", "close") // with HTTP/2, too
				}
				s.tooMany(w, r, "address", wait)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// Listener is l without the connections of addresses that flood the server:
// closed before TLS, which costs more than a request.
func (s *Server) Listener(l net.Listener) net.Listener { return &limitedListener{l, s} }

type limitedListener struct {
	net.Listener
	s *Server
}

// Accept implements net.Listener.
func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from, counts := l.s.limits.from(c.RemoteAddr().String())
		if !counts || !l.s.limits.flooding(from, l.s.Clock()) {
			return c, nil
		}
		l.s.meters.limited.Inc("connection")
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // keep nothing of it
		}
		_ = c.Close()
	}
}

// flooding is whether whoever this is has used up his requests and refusals.
// As soon as he has a request again he gets that many connections, not all
// that he makes meanwhile.
func (l *limits) flooding(from netip.Prefix, now time.Time) bool {
	return l.refusals.spent(from, now) && (l.addresses.spent(from, now) || l.another.take(from, now, 1) > 0)
}

func (s *Server) tooMany(w http.ResponseWriter, r *http.Request, by string, wait time.Duration) {
	s.handle(func(http.ResponseWriter, *http.Request) error { return s.rateProblem(by, wait) })(w, r)
}

func (s *Server) rateProblem(by string, wait time.Duration) error {
	s.meters.limited.Inc(by)
	return &refusal.Error{Code: kbs.CodeRateLimited, Detail: "too many requests from this " + by, RetryAfter: wait}
}

// limitToken counts a request of a token's bearer, and of its tenant.
func (s *Server) limitToken(t store.Token) error {
	if t.Tenant != "" {
		if wait := s.limits.tokens.take("tenant/"+t.Tenant, s.Clock(), 1); wait > 0 {
			return s.rateProblem("tenant", wait)
		}
	}
	if wait := s.limits.tokens.take("token/"+t.ID, s.Clock(), 1); wait > 0 {
		return s.rateProblem("token", wait)
	}
	return nil
}

// punish makes a wrong token dear for the address it came from.
func (s *Server) punish(r *http.Request) {
	if from, counts := s.limits.address(r); counts {
		s.limits.addresses.charge(from, s.Clock(), badTokenCost)
	}
}

// punishing has a handler's 401 count as a wrong token.
func (s *Server) punishing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if rec.status == http.StatusUnauthorized {
			s.punish(r)
		}
	})
}

// limiterTable keeps a limiter for each of the keys seen lately, in two
// generations of which the older is dropped whole.
type limiterTable[K comparable] struct {
	rate Rate
	max  int

	mu                sync.Mutex
	current, previous map[K]*rate.Limiter
}

func newLimiterTable[K comparable](r Rate, most int) *limiterTable[K] {
	return &limiterTable[K]{rate: r, max: max(2, most), current: map[K]*rate.Limiter{}}
}

// take counts n requests of key now. If that is over its rate they are not
// counted, and wait says when to come again.
func (t *limiterTable[K]) take(key K, now time.Time, n int) (wait time.Duration) {
	if t.rate.PerSecond < 0 {
		return 0
	}
	r := t.limiter(key).ReserveN(now, n)
	if !r.OK() {
		return time.Second // n is more than the burst
	}
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// spent says whether take would refuse, for a key that took lately.
func (t *limiterTable[K]) spent(key K, now time.Time) bool {
	if t.rate.PerSecond < 0 {
		return false
	}
	t.mu.Lock()
	l := t.current[key]
	if l == nil {
		l = t.previous[key]
	}
	t.mu.Unlock()
	return l != nil && l.TokensAt(now) < 1
}

// charge counts n requests also if that is over the rate.
func (t *limiterTable[K]) charge(key K, now time.Time, n int) {
	if t.rate.PerSecond >= 0 {
		t.limiter(key).ReserveN(now, min(n, t.rate.Burst))
	}
}

func (t *limiterTable[K]) limiter(key K) *rate.Limiter {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.current[key]
	if l != nil {
		return l
	}
	if l = t.previous[key]; l == nil {
		l = rate.NewLimiter(rate.Limit(t.rate.PerSecond), t.rate.Burst)
	}
	if len(t.current) >= t.max/2 {
		t.previous, t.current = t.current, map[K]*rate.Limiter{}
	}
	t.current[key] = l
	return l
}

// retryAfter is a wait in whole seconds, as the header wants it.
func retryAfter(wait time.Duration) int { return max(1, int(math.Ceil(wait.Seconds()))) }
