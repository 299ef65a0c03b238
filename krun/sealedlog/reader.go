package sealedlog

import (
	"crypto/cipher"
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Bounds of what a Reader keeps of frames whose key has not come yet, and of
// boots: a log of 65536 restarts is one of something else.
const (
	maxKeylessBytes = 8 << 20
	maxKeylessBoots = 1024
	maxBoots        = 1 << 16
)

// Trusted is what is known of a workload from elsewhere than from its host.
type Trusted struct {
	WorkloadID     string
	IdentityDigest kbs.Digest
	Signer         ed25519.PublicKey // of the identity
}

// A Reader verifies and decrypts a log. The functions are called in the log's
// order, as it comes.
type Reader struct {
	Trusted    Trusted
	Identities []age.Identity
	// Trust, if Trusted is not set, is asked once: about the workload of which
	// the first key in the log claims to be.
	Trust func(workloadID string) (Trusted, error)

	OnBoot    func(boot string, a About)
	OnRecord  func(boot string, r Record)
	OnEnd     func(boot string, e End)
	OnTrouble func(Trouble)

	boots   map[string]*bootState
	now     *bootState // the boot that the log is in
	met     *bootState // the one whose key came last
	keyless keyless
	sources []*scanner
	err     error
}

type bootState struct {
	name   string
	about  About
	aead   cipher.AEAD
	next   uint64 // sequence number
	before *chain // of the frame before next; nil: not seen
	over   bool   // another boot followed
	ended  bool
}

// ErrNotRecipient is of a log that the reader's identities do not open.
var ErrNotRecipient = errNotRecipient

// Source is one stream of text in which lines are looked for. Its Write fails
// only where going on is of no use.
func (r *Reader) Source() *Source {
	s := &scanner{found: r.line, broken: func() { r.trouble(Trouble{Fault: Broken}) }}
	r.sources = append(r.sources, s)
	return &Source{r, s}
}

// A Source is an io.Writer for the text of a log, in pieces of any size.
type Source struct {
	r *Reader
	s *scanner
}

// Write takes the next piece.
func (s *Source) Write(p []byte) (int, error) {
	s.s.feed(p)
	return len(p), s.r.err
}

func (r *Reader) trouble(t Trouble) {
	if r.OnTrouble != nil {
		r.OnTrouble(t)
	}
}

func (r *Reader) line(l *line) {
	if r.err != nil {
		return
	}
	b := r.boots[l.boot]
	switch {
	case b == nil && l.isKey:
		r.meet(l)
	case l.isKey: // the same once more
	case b == nil:
		r.keyless.add(l)
	default:
		r.frame(b, l)
	}
}

// meet takes a line with a key that was not seen before.
func (r *Reader) meet(l *line) {
	if r.err = r.askTrust(l); r.err != nil {
		return
	}
	b, err := r.open(l)
	switch {
	case errors.Is(err, errNotRecipient):
		r.err = err
		return
	case err != nil:
		r.trouble(Trouble{Fault: ForgedKey, Boot: l.boot})
		return
	case len(r.boots) >= maxBoots:
		r.err = fmt.Errorf("more than %d boots in one log", maxBoots)
		return
	case r.boots == nil:
		r.boots = map[string]*bootState{}
	}
	boot := strings.Clone(l.boot) // a part of all of the line
	r.boots[boot], b.name = b, boot
	if r.met != nil && r.met.next == 0 { // which is why there is another
		r.trouble(Trouble{Fault: MissingEnd, Boot: r.met.name})
		r.met.over = true
	}
	r.met = b
	if r.OnBoot != nil {
		r.OnBoot(l.boot, b.about)
	}
	for _, waiting := range r.keyless.take(l.boot) {
		r.line(waiting)
	}
}

// askTrust finds out what is known of the workload that l names, of which
// nothing is proven.
func (r *Reader) askTrust(l *line) (err error) {
	if r.Trust == nil || !r.Trusted.IdentityDigest.IsZero() {
		return nil
	}
	claim, err := l.decryptKey(r.Identities)
	if errors.Is(err, errNotRecipient) {
		return err
	}
	if err != nil { // which opening it will say
		return nil
	}
	defer clear(claim.Key)
	if r.Trusted, err = r.Trust(claim.WorkloadID); err == nil && r.Trusted.IdentityDigest.IsZero() {
		err = fmt.Errorf("nothing is known of workload %q", claim.WorkloadID)
	}
	return err
}

// open takes the key from a line that a guest of the trusted image wrote.
func (r *Reader) open(l *line) (*bootState, error) {
	about, key, err := l.openKey(r.Trusted.Signer, r.Identities)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if t := r.Trusted; t.IdentityDigest.IsZero() || about.IdentityDigest != t.IdentityDigest || about.WorkloadID != t.WorkloadID {
		return nil, errForgedKey
	}
	b := &bootState{name: l.boot, about: about}
	b.aead, err = newAEAD(key)
	return b, err
}

// frame takes a frame of a boot whose key is known.
func (r *Reader) frame(b *bootState, l *line) {
	at := Trouble{Boot: b.name, First: l.seq, Last: l.seq}
	before, records, err := l.openFrame(b.aead)
	switch {
	case err != nil:
		at.Fault = Altered
		r.trouble(at)
		return
	case l.seq < b.next || b.ended || b.over:
		at.Fault = Repeated
		r.trouble(at)
		return
	}
	r.enter(b)
	switch {
	case l.seq > b.next:
		r.trouble(Trouble{Fault: Missing, Boot: b.name, First: b.next, Last: l.seq - 1, Before: records[0].Time})
	case b.before != nil && *b.before != before || b.next == 0 && before != chain{}:
		at.Fault = OutOfChain
		r.trouble(at)
	}
	tag := chain(l.body[len(l.body)-chainBytes:])
	b.before, b.next = &tag, l.seq+1
	for _, rec := range records {
		r.record(b, rec)
	}
}

// enter makes b the boot that the log is in.
func (r *Reader) enter(b *bootState) {
	if r.now == b {
		return
	}
	if r.now != nil {
		r.now.over = true
		if !r.now.ended {
			r.trouble(Trouble{Fault: MissingEnd, Boot: r.now.name, Last: r.now.next - 1})
		}
	}
	r.now = b
}

func (r *Reader) record(b *bootState, rec Record) {
	if rec.Kind != Last {
		if r.OnRecord != nil {
			r.OnRecord(b.name, rec)
		}
		return
	}
	b.ended = true
	var e End
	if err := kbs.UnmarshalStrict(rec.Data, &e); err != nil {
		e = End{Status: -1, Error: "the end of the log is not understood: " + err.Error()}
	}
	if r.OnEnd != nil {
		r.OnEnd(b.name, e)
	}
}

// A Tail is how a log ends.
type Tail struct {
	Boots int // whose key was found and is genuine
	// Boot is the last one, and Frames how many of it there should be so far.
	Boot   string
	Frames uint64
	Ended  bool // it ended in order
	// Incomplete says that the text ended within a line.
	Incomplete bool
}

// Finish says what only the end of the text shows.
func (r *Reader) Finish() Tail {
	for boot, n := range r.keyless.left() {
		r.trouble(Trouble{Fault: Keyless, Boot: boot, N: n})
	}
	t := Tail{Boots: len(r.boots)}
	for _, s := range r.sources {
		t.Incomplete = t.Incomplete || s.incomplete()
	}
	last := r.now
	if r.met != nil && r.met.next == 0 { // it began, and nothing of it is there
		last = r.met
	}
	if last != nil {
		t.Boot, t.Frames, t.Ended = last.name, last.next, last.ended
	}
	return t
}

// Err is what ended reading.
func (r *Reader) Err() error { return r.err }

// keyless are frames of boots whose key has not come yet: of a log whose
// beginning was rotated away it comes again soon.
type keyless struct {
	boots  map[string]*waiting
	bytes  int
	others int // frames of more boots than there is room for
}

type waiting struct {
	lines []*line
	lost  int // given up for want of room
}

func (k *keyless) add(l *line) {
	if k.boots == nil {
		k.boots = map[string]*waiting{}
	}
	w := k.boots[l.boot]
	if w == nil {
		if len(k.boots) >= maxKeylessBoots {
			k.others++
			return
		}
		w = &waiting{}
		k.boots[l.boot] = w
	}
	if k.bytes += len(l.body) + minimalHead; k.bytes > maxKeylessBytes {
		k.bytes -= len(l.body) + minimalHead
		w.lost++
		return
	}
	w.lines = append(w.lines, l)
}

func (k *keyless) take(boot string) []*line {
	w := k.boots[boot]
	if w == nil {
		return nil
	}
	delete(k.boots, boot)
	for _, l := range w.lines {
		k.bytes -= len(l.body) + minimalHead
	}
	return w.lines
}

// left is how many frames each boot waits with.
func (k *keyless) left() map[string]int {
	n := map[string]int{}
	for boot, w := range k.boots {
		n[boot] = len(w.lines) + w.lost
	}
	if k.others > 0 {
		n["?"] = k.others
	}
	return n
}
