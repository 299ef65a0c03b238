package witness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/hint"
)

// Named is a witness as the operator configured it.
type Named struct {
	Witness
	Name string
	// Key verifies its cosignatures. nil: it does not sign.
	Key checkpoint.Verifier
	// Optional: the server may begin while it is out of reach. What it says
	// against the log counts all the same.
	Optional bool
}

const (
	// roundTime is how long the slowest witness has in a round.
	roundTime = 20 * time.Second
	// retryEvery is how long Run waits while nothing may be released.
	retryEvery = 5 * time.Second
)

// Anchor shows a log to its witnesses, and knows whether they hold to it.
type Anchor struct {
	log       Log
	witnesses []Named
	say       *slog.Logger
	said      sayings

	mu      sync.Mutex
	agreed  map[string]bool // since the start
	refusal error           // nil: the log is what they have seen
	shown   []byte          // the checkpoint that they have, with cosignatures
}

var errNotYet = errors.New("the audit log was not compared with its witnesses yet")

// NewAnchor is an anchor that refuses until a Round has passed.
func NewAnchor(log Log, witnesses []Named, say *slog.Logger) (*Anchor, error) {
	if len(witnesses) == 0 {
		return nil, errors.New("an anchor without witnesses")
	}
	names := map[string]bool{}
	for _, w := range witnesses {
		if w.Name == "" || names[w.Name] {
			return nil, hint.Usagef("two witnesses are named %q, or one has no name", w.Name)
		}
		names[w.Name] = true
	}
	return &Anchor{log: log, witnesses: witnesses, say: say, agreed: map[string]bool{}, refusal: errNotYet}, nil
}

// Ready is nil if the log was, when last compared, what its witnesses have seen.
func (a *Anchor) Ready() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refusal
}

// Checkpoint is the one that the witnesses have, with their cosignatures. nil:
// none yet.
func (a *Anchor) Checkpoint() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.shown
}

// Said is what each witness has said last, in the order of the configuration.
func (a *Anchor) Said() []Said {
	all := make([]Said, 0, len(a.witnesses))
	for _, w := range a.witnesses {
		s := a.said.of(w.Name)
		s.Name, s.Optional, s.Signs = w.Name, w.Optional, w.Key != nil
		all = append(all, s)
	}
	return all
}

// Run makes a Round after each interval, sooner while nothing may be released.
func (a *Anchor) Run(ctx context.Context, every time.Duration) {
	for {
		wait := every
		if a.Ready() != nil {
			wait = min(every, retryEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		_ = a.Round(ctx) // says what is wrong by itself
	}
}

// Round shows the log as it is now to all witnesses. The error is Ready's from
// then on.
func (a *Anchor) Round(ctx context.Context) error {
	ctx, end := context.WithTimeout(ctx, roundTime)
	defer end()
	c, answers, err := a.show(ctx)
	if err == nil && anyIs(answers, ErrBehind) {
		// Another server on the same database may have been faster.
		c, answers, err = a.show(ctx)
	}
	if err != nil {
		// A store that was tampered with takes no write, and so releases nothing.
		a.say.Error("the audit log could not be compared with its witnesses", "error", err)
		return a.Ready()
	}
	shown, refusal := a.judge(c, answers)
	if refusal == nil {
		err = a.log.SetWitnessed(ctx, shown)
	}
	if err != nil {
		a.say.Warn("the witnessed checkpoint could not be kept", "error", err)
	}
	return a.settle(refusal, shown.Note)
}

// answer is what one witness has said.
type answer struct {
	cosignature []byte
	err         error
}

func (a *Anchor) show(ctx context.Context) (checkpoint.Signed, []answer, error) {
	c, err := a.log.Checkpoint(ctx)
	if err != nil {
		return c, nil, err
	}
	answers := make([]answer, len(a.witnesses))
	var all sync.WaitGroup
	for i, w := range a.witnesses {
		all.Go(func() {
			x, err := w.Show(ctx, a.log, c, false)
			answers[i] = answer{x, err}
		})
	}
	all.Wait()
	return c, answers, nil
}

func anyIs(answers []answer, err error) bool {
	for _, x := range answers {
		if errors.Is(x.err, err) {
			return true
		}
	}
	return false
}

// judge is the checkpoint with the cosignatures of all who agree, and what
// stands against it.
func (a *Anchor) judge(c checkpoint.Signed, answers []answer) (checkpoint.Signed, error) {
	var against []error
	var agree, differ []string
	for i, w := range a.witnesses {
		err := answers[i].err
		if err == nil {
			c, err = withCosignature(c, w, answers[i].cosignature)
		}
		a.said.note(w.Name, c.Size, err)
		switch {
		case err == nil:
			agree = append(agree, w.Name)
			continue
		case contradicts(err):
			differ = append(differ, w.Name)
		case silent(err) && (w.Optional || a.hasAgreed(w.Name)):
			if lies(err) {
				a.say.Error("A WITNESS LIES, OR IS BROKEN: it does not count, be it for the audit log or against it", "witness", w.Name, "error", err, "hint", hint.Of(nextStep(w.Name, err)))
			} else {
				a.say.Warn("a witness did not see the audit log", "witness", w.Name, "error", err)
			}
			continue
		}
		against = append(against, nextStep(w.Name, fmt.Errorf("witness %s: %w", w.Name, err)))
	}
	a.noteAgreed(agree)
	if len(agree) > 0 && len(differ) > 0 {
		against = append(against, fmt.Errorf("witnesses disagree: %s with the log, %s against it", strings.Join(agree, ", "), strings.Join(differ, ", ")))
	}
	return c, errors.Join(against...)
}

// withCosignature adds what a witness that signs must have sent.
func withCosignature(c checkpoint.Signed, w Named, cosignature []byte) (checkpoint.Signed, error) {
	if w.Key == nil {
		return c, nil
	}
	merged, err := checkpoint.Merge(c.Note, append([]byte(c.Text()+"\n"), cosignature...))
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrForged, err)
	}
	// Only the witness's: the log's own signature is ours.
	s, err := checkpoint.OpenCosigned(merged, w.Key)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrForged, err)
	}
	c.Note, c.Cosigned = merged, append(c.Cosigned, s...)
	return c, nil
}

func (a *Anchor) hasAgreed(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.agreed[name]
}

func (a *Anchor) noteAgreed(names []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, n := range names {
		a.agreed[n] = true
	}
}

// settle keeps a round's outcome, and says what has changed.
func (a *Anchor) settle(refusal error, shown []byte) error {
	a.mu.Lock()
	before := a.refusal
	a.refusal = refusal
	if refusal == nil {
		a.shown = shown
	}
	a.mu.Unlock()
	switch {
	case refusal != nil && (before == nil || before.Error() != refusal.Error()):
		a.say.Error("NOTHING IS RELEASED: the audit log is not what its witnesses have seen, or they cannot say", "error", refusal, "hint", hint.Of(refusal))
	case refusal == nil && before != nil:
		a.say.Info("the audit log is what its witnesses have seen", "witnesses", len(a.witnesses))
	}
	return refusal
}

// Agreed shows the log to all witnesses, and keeps the checkpoint, which all must
// agree to: from there on none of them can ask for an earlier one.
func Agreed(ctx context.Context, log Log, all []Named) error {
	ctx, end := context.WithTimeout(ctx, roundTime)
	defer end()
	c, err := log.Checkpoint(ctx)
	if err != nil {
		return err
	}
	for _, w := range all {
		cosignature, err := w.Show(ctx, log, c, false)
		if err == nil {
			c, err = withCosignature(c, w, cosignature)
		}
		if err != nil {
			return nextStep(w.Name, fmt.Errorf("asking witness %s: %w", w.Name, err))
		}
	}
	return log.SetWitnessed(ctx, c)
}

// Ask is what one witness says of the log as it is now.
func Ask(ctx context.Context, log Log, w Named) error { return showOne(ctx, log, w, false) }

// Introduce shows the log to a witness that may know nothing of it.
func Introduce(ctx context.Context, log Log, w Named) error {
	if err := showOne(ctx, log, w, true); err != nil {
		return nextStep(w.Name, fmt.Errorf("introducing the audit log to witness %s: %w", w.Name, err))
	}
	return nil
}

func showOne(ctx context.Context, log Log, w Named, first bool) error {
	ctx, end := context.WithTimeout(ctx, roundTime)
	defer end()
	c, err := log.Checkpoint(ctx)
	if err != nil {
		return err
	}
	cosignature, err := w.Show(ctx, log, c, first)
	if err == nil {
		_, err = withCosignature(c, w, cosignature)
	}
	return err
}
