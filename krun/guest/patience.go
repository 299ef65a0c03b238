package guest

import (
	"fmt"
	"time"

	"github.com/ccrun/ccrun/hint"
)

// A limit ends something that takes too long, but for the time suspended.
type limit struct {
	timer *time.Timer
	end   time.Time
}

func newLimit(d time.Duration, over func()) *limit {
	return &limit{time.AfterFunc(d, over), time.Now().Add(d)}
}

// left is how much of it is left.
func (l *limit) left() time.Duration { return max(0, time.Until(l.end)) }

func (l *limit) stop() { l.timer.Stop() }

// suspend stops the clock until resume is called, on the same goroutine.
func (l *limit) suspend() (resume func()) {
	if !l.timer.Stop() {
		return func() {} // it is over
	}
	left := time.Until(l.end)
	return func() {
		l.end = time.Now().Add(left)
		l.timer.Reset(left)
	}
}

// longestSilence is how long a waiting guest says nothing of why it waits: a
// console may be kept for years.
const longestSilence = time.Hour

// complaints are the lines of a guest that waits for its servers: one for each
// try at first, then ever fewer.
type complaints struct {
	line  func(string)
	start time.Time
	next  time.Time // when the next round is worth lines
	gap   time.Duration
	quiet bool // in this round
	said  map[string]bool
}

// once says what does not change from try to try. The bound is for servers that
// have something new to say each time.
func (c *complaints) once(line string) {
	if c.said == nil {
		c.said = map[string]bool{}
	}
	if !c.said[line] && len(c.said) < 16 {
		c.said[line] = true
		c.line(line)
	}
}

// retry says why a try failed. A pause ends the round, after which every server
// is asked again.
func (c *complaints) retry(why error, pause time.Duration) {
	if c.start.IsZero() {
		c.start = time.Now()
	}
	if !c.quiet {
		c.line(c.text(why, pause))
	}
	if pause == 0 {
		return
	}
	again := time.Now().Add(pause)
	if !c.quiet {
		c.gap = min(2*c.gap+time.Second, longestSilence)
		c.next = time.Now().Add(c.gap)
	}
	c.quiet = again.Before(c.next)
}

func (c *complaints) text(why error, pause time.Duration) string {
	text := why.Error()
	if next := hint.Of(why); next != "" {
		text += "; next: " + next
	}
	text += "; trying again"
	if pause > 0 {
		text += " in " + pause.Round(100*time.Millisecond).String()
	}
	if waited := time.Since(c.start); waited >= time.Minute {
		text += fmt.Sprintf(", after %s of waiting", waited.Round(time.Second))
	}
	return text
}
