package kbs

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"
)

// Forever is a Client's Wait without an end.
const Forever = time.Duration(math.MaxInt64)

const (
	firstPause = 500 * time.Millisecond
	// longestPause bounds how late a guest notices that its server is back.
	longestPause = time.Minute
	// longestRetryAfter bounds what a server may ask for.
	longestRetryAfter = 5 * time.Minute
)

// asked is one of the Client's servers.
type asked struct {
	url    string
	last   error
	resume time.Time // not to be asked before: it wanted a pause
}

func (a *asked) failed(what string, err error) {
	a.last = fmt.Errorf("asking %s for %s: %w", a.url, what, err)
	a.resume = time.Now().Add(wantedPause(err))
}

// inquiry asks servers until one answers or refuses, ever more slowly.
type inquiry struct {
	what  string        // is asked for, in words
	wait  time.Duration // how long to go on; zero: each is asked once
	final func(error) bool
	retry func(why error, pause time.Duration) // told of each try that another follows
}

// ask calls try with one URL after the other.
func (q inquiry) ask(ctx context.Context, urls []string, try func(url string) error) error {
	servers := make([]asked, len(urls))
	for i, u := range urls {
		servers[i].url = u
	}
	start := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		why, over := q.round(ctx, servers, try)
		if over {
			return why
		}
		next := min(pauseBefore(servers, pause), q.wait-time.Since(start))
		if next <= 0 {
			return q.noAnswer(servers)
		}
		if why != nil {
			q.retry(why, next)
		}
		if sleep(ctx, next) != nil {
			return q.noAnswer(servers)
		}
	}
}

// round asks each server that does not want to be left alone. It is over once
// one has answered, with an error if the answer is final; else why is the last
// failure that nobody was told of.
func (q inquiry) round(ctx context.Context, servers []asked, try func(string) error) (why error, over bool) {
	for i := range servers {
		s := &servers[i]
		if time.Now().Before(s.resume) {
			continue
		}
		if why != nil {
			q.retry(why, 0)
		}
		err := try(s.url)
		if err == nil {
			return nil, true
		}
		s.failed(q.what, err)
		if why = s.last; q.final(err) || ctx.Err() != nil {
			return why, true
		}
	}
	return why, false
}

// pauseBefore is the wait before the next round: about pause, by chance, since
// guests that lost their server together must not come back together; longer if
// every server wants to be left alone for longer. What a server asked for it may
// have asked of hundreds in the same second: up to half as long again, by chance.
func pauseBefore(servers []asked, pause time.Duration) time.Duration {
	soonest := longestRetryAfter
	for _, s := range servers {
		soonest = min(soonest, time.Until(s.resume))
	}
	least := max(soonest, pause/2)
	return least + rand.N(max(pause, least)/2+1)
}

// noAnswer is what is left to say when waiting has ended.
func (q inquiry) noAnswer(servers []asked) error {
	last := make([]error, len(servers))
	for i, s := range servers {
		last[i] = s.last
	}
	err := errors.Join(last...)
	if q.wait > 0 && q.wait < Forever {
		err = fmt.Errorf("no server answered for %s within %s: %w", q.what, q.wait, err)
	}
	return err
}

// pauseWanted is an error that came with a wish to be left alone.
type pauseWanted interface {
	error
	wantedPause() time.Duration
}

func wantedPause(err error) time.Duration {
	var p pauseWanted
	if !errors.As(err, &p) {
		return 0
	}
	return p.wantedPause()
}

// retryAfter reads the Retry-After of a server in trouble, in seconds. Dates
// are passed over: they are worth nothing without a clock to trust.
func retryAfter(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusServiceUnavailable && resp.StatusCode != http.StatusTooManyRequests {
		return 0
	}
	n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, longestRetryAfter)
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
