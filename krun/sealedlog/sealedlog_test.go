package sealedlog

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// world is one workload: its signing key, and an owner with an identity.
type world struct {
	about    About
	signing  ed25519.PrivateKey
	identity *age.X25519Identity
	now      time.Time
}

func newWorld(t testing.TB) *world {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	signing, err := SigningKey(secret.New(bytes.Repeat([]byte{7}, 48)))
	if err != nil {
		t.Fatal(err)
	}
	return &world{
		about:   About{WorkloadID: "shop", IdentityDigest: kbs.Sum384([]byte("identity")), ReportData: make([]byte, 64), Began: 1},
		signing: signing, identity: id, now: time.Unix(1_800_000_000, 0),
	}
}

func (w *world) boot(t testing.TB) *Boot {
	t.Helper()
	b, err := NewBoot(w.about, []age.Recipient{w.identity.Recipient()}, w.signing)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *world) trusted() Trusted {
	return Trusted{w.about.WorkloadID, w.about.IdentityDigest, w.signing.Public().(ed25519.PublicKey)}
}

// log writes a boot of n frames, each "line I\n" on stdout, and its end if it
// has one.
func (w *world) log(t testing.TB, n int, end *End) []string {
	t.Helper()
	var out bytes.Buffer
	wr, err := NewWriter(w.boot(t), &out, func() time.Time { w.now = w.now.Add(time.Second); return w.now })
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		fmt.Fprintf(wr.Stream(Stdout), "line %d\n", i)
		if err := wr.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if end != nil {
		if err := wr.Close(*end); err != nil {
			t.Fatal(err)
		}
	}
	return strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
}

// seen is what a reader was told.
type seen struct {
	out, err, notes strings.Builder
	boots           []string
	ends            []End
	troubles        []Trouble
	tail            Tail
	failed          error
}

func (w *world) read(text string) *seen { return readAs(w.trusted(), w.identity, text) }

func readAs(trusted Trusted, id age.Identity, text string) *seen {
	s := &seen{}
	r := &Reader{Trusted: trusted, Identities: []age.Identity{id},
		OnBoot: func(boot string, _ About) { s.boots = append(s.boots, boot) },
		OnRecord: func(_ string, r Record) {
			to := map[Kind]io.Writer{Stdout: &s.out, Stderr: &s.err, Note: &s.notes}[r.Kind]
			_, _ = to.Write(r.Data)
		},
		OnEnd:     func(_ string, e End) { s.ends = append(s.ends, e) },
		OnTrouble: func(t Trouble) { s.troubles = append(s.troubles, t) },
	}
	_, s.failed = r.Source().Write([]byte(text))
	s.tail = r.Finish()
	return s
}

func (s *seen) faults() string {
	var all []string
	for _, t := range s.troubles {
		f := string(t.Fault)
		if t.Fault == Missing || t.Fault == Altered || t.Fault == Repeated {
			f += fmt.Sprintf(" %d-%d", t.First, t.Last)
		}
		all = append(all, f)
	}
	return strings.Join(all, ", ")
}

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func TestCleanLog(t *testing.T) {
	w := newWorld(t)
	s := w.read(strings.Join(w.log(t, 5, &End{Status: 3, Error: "no such file: /secret/name"}), ""))
	if s.failed != nil || s.out.String() != lines(0, 5) || len(s.troubles) != 0 || !s.tail.Ended || s.tail.Boots != 1 {
		t.Errorf("out %q, troubles %v, tail %+v, error %v", s.out.String(), s.troubles, s.tail, s.failed)
	}
	if len(s.ends) != 1 || s.ends[0] != (End{3, "no such file: /secret/name"}) {
		t.Errorf("ends %v", s.ends)
	}
}

// TestAttacks: what a host can do to a log is named, and never shown as the
// workload's. Lines: 0 is the key's, 1 to 6 are frames 0 to 5, 7 is the end.
func TestAttacks(t *testing.T) {
	w := newWorld(t)
	a, b := w.log(t, 6, &End{}), w.log(t, 6, &End{})
	otherSigner := &world{about: w.about, identity: w.identity, signing: ed25519.NewKeyFromSeed(make([]byte, 32)), now: w.now}
	forged := otherSigner.log(t, 6, &End{})
	otherImage := &world{about: w.about, identity: w.identity, signing: w.signing, now: w.now}
	otherImage.about.IdentityDigest = kbs.Sum384([]byte("another identity"))
	image := otherImage.log(t, 6, &End{})
	flip := func(s string, at int) string {
		x := []byte(s)
		if x[at]++; x[at] == 'z'+1 || x[at] == '9'+1 || x[at] == 'Z'+1 || x[at] == '_'+1 || x[at] == '-'+1 {
			x[at] = 'a'
		}
		return string(x)
	}
	without := func(l []string, at ...int) []string {
		var out []string
		for i, s := range l {
			if !slices.Contains(at, i) {
				out = append(out, s)
			}
		}
		return out
	}
	with := func(l []string, at int, s ...string) []string { return slices.Insert(slices.Clone(l), at, s...) }
	put := func(l []string, at int, s string) []string { l = slices.Clone(l); l[at] = s; return l }
	swapped := func(l []string, i, j int) []string { l = slices.Clone(l); l[i], l[j] = l[j], l[i]; return l }
	body := len(linePrefix) + bootChars + 3
	for name, c := range map[string]struct {
		log    []string
		out    string
		faults string
	}{
		"as it is":                  {a, lines(0, 6), ""},
		"altered body":              {put(a, 3, flip(a[3], body+40)), lines(0, 2) + lines(3, 6), "altered 2-2, missing 2-2"},
		"altered tag":               {put(a, 3, flip(a[3], len(a[3])-6)), lines(0, 2) + lines(3, 6), "altered 2-2, missing 2-2"},
		"altered number":            {put(a, 3, strings.Replace(a[3], ".2.", ".3.", 1)), lines(0, 2) + lines(3, 6), "altered 3-3, missing 2-2"},
		"dropped":                   {without(a, 3), lines(0, 2) + lines(3, 6), "missing 2-2"},
		"several dropped":           {without(a, 1, 2, 4), "line 2\n" + lines(4, 6), "missing 0-1, missing 3-3"},
		"swapped":                   {swapped(a, 3, 4), lines(0, 2) + lines(3, 6), "missing 2-2, repeated 2-2"},
		"repeated":                  {with(a, 4, a[3]), lines(0, 6), "repeated 2-2"},
		"repeated at the end":       {with(a, 8, a[1]), lines(0, 6), "repeated 0-0"},
		"head gone":                 {a[3:], "", "keyless"},
		"head gone, key repeated":   {with(a[3:], 2, a[0]), lines(2, 6), "missing 0-1"},
		"key gone":                  {a[1:], "", "keyless"},
		"key of another signer":     {put(a, 0, forged[0]), "", "forged-key, keyless"},
		"forged log":                {forged, "", "forged-key, keyless"},
		"another image's log":       {image, "", "forged-key, keyless"},
		"frame of another boot":     {with(a, 3, b[1]), lines(0, 6), "keyless"},
		"spliced":                   {slices.Concat(a[:4], b[4:]), lines(0, 3), "keyless"},
		"spliced with its key":      {slices.Concat(a[:4], b[:1], b[4:]), lines(0, 3) + lines(3, 6), "missing-end, missing 0-2"},
		"frame under another key":   {put(a, 3, strings.Replace(b[3], b[3][:body], a[3][:body], 1)), lines(0, 2) + lines(3, 6), "altered 2-2, missing 2-2"},
		"two boots":                 {slices.Concat(a, b), lines(0, 6) + lines(0, 6), ""},
		"first boot without end":    {slices.Concat(a[:7], b), lines(0, 6) + lines(0, 6), "missing-end"},
		"all of a boot but its key": {slices.Concat(a[:1], b), lines(0, 6), "missing-end"},
		"boots interleaved":         {slices.Concat(a[:4], b[:4], a[4:]), lines(0, 3) + lines(0, 3), "missing-end, repeated 3-3, repeated 4-4, repeated 5-5, repeated 6-6"},
		"a boot played again":       {slices.Concat(a, b, a), lines(0, 6) + lines(0, 6), strings.TrimSuffix(strings.Repeat("repeated N, ", 7), ", ")},
		"cut line":                  {put(a, 3, a[3][:60]), lines(0, 2) + lines(3, 6), "broken, missing 2-2"},
		"written into":              {put(a, 3, a[3][:60]+"\nccrun-init: hello\n"+a[3][60:]), lines(0, 2) + lines(3, 6), "broken, missing 2-2"},
		"in pieces":                 {put(a, 3, a[3][:3]+"\n"+a[3][3:60]+"\r\n"+a[3][60:]), lines(0, 6), ""},
		"foreign prefix":            {put(a, 3, "[2026 ERROR init_or_kernel] "+a[3]), lines(0, 6), ""},
		"foreign lines":             {with(a, 3, "hello [ccl1] [ccl2.x]\n", "\xff\x00[\n"), lines(0, 6), ""},
		"not a frame":               {with(a, 3, "[ccl1.hello]\n"), lines(0, 6), "broken"},
		"endless line":              {with(a, 3, "[ccl1."+strings.Repeat("x", 1<<20)+"\n"), lines(0, 6), "broken"},
	} {
		s := w.read(strings.Join(c.log, ""))
		got := s.faults()
		if strings.Contains(c.faults, " N") {
			for i := range 7 {
				got = strings.ReplaceAll(got, fmt.Sprintf("repeated %d-%d", i, i), "repeated N")
			}
		}
		if s.failed != nil || s.out.String() != c.out || got != c.faults {
			t.Errorf("%s: out %q, faults %q, error %v; expected %q and %q", name, s.out.String(), got, s.failed, c.out, c.faults)
		}
	}
}

// TestTails: how a log ends is told, without it being a fault.
func TestTails(t *testing.T) {
	w := newWorld(t)
	whole, running := w.log(t, 3, &End{Status: 1}), w.log(t, 3, nil)
	for name, c := range map[string]struct {
		text              string
		ended, incomplete bool
		frames            uint64
	}{
		"ended":      {strings.Join(whole, ""), true, false, 4},
		"running":    {strings.Join(running, ""), false, false, 3},
		"cut":        {strings.Join(whole[:3], ""), false, false, 2},
		"incomplete": {strings.Join(whole[:3], "") + whole[3][:50], false, true, 2},
		"empty":      {"", false, false, 0},
		"a key more": {strings.Join(whole, "") + running[0], false, false, 0},
	} {
		s := w.read(c.text)
		if len(s.troubles) != 0 || s.tail.Ended != c.ended || s.tail.Incomplete != c.incomplete || s.tail.Frames != c.frames {
			t.Errorf("%s: troubles %v, tail %+v", name, s.troubles, s.tail)
		}
	}
}

// TestOnlyRecipientsRead: neither another's identity opens the log, nor is one
// opened for a workload that is not the trusted one.
func TestOnlyRecipientsRead(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	text := strings.Join(w.log(t, 3, &End{}), "")
	if s := readAs(w.trusted(), other.identity, text); s.failed == nil || s.out.Len() > 0 {
		t.Errorf("another's identity read %q, error %v", s.out.String(), s.failed)
	}
	for name, change := range map[string]func(*Trusted){
		"workload": func(x *Trusted) { x.WorkloadID = "other" },
		"identity": func(x *Trusted) { x.IdentityDigest = kbs.Sum384(nil) },
		"none":     func(x *Trusted) { x.IdentityDigest = kbs.Digest{} },
		"signer":   func(x *Trusted) { x.Signer = ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey) },
		"nobody":   func(x *Trusted) { x.Signer = nil },
		"zero":     func(x *Trusted) { *x = Trusted{} },
	} {
		trusted := w.trusted()
		change(&trusted)
		if s := readAs(trusted, w.identity, text); s.out.Len() > 0 || s.faults() != "forged-key, keyless" {
			t.Errorf("%s: read %q, faults %q", name, s.out.String(), s.faults())
		}
	}
}

// TestLogShowsNothing: no word of the workload's, the agent's or the recipients'
// is in the text, in any of the ways in which one looks for it, and short words
// are of one length.
func TestLogShowsNothing(t *testing.T) {
	w := newWorld(t)
	var out bytes.Buffer
	wr, _ := NewWriter(w.boot(t), &out, time.Now)
	const canary = "canary-4711-of-the-workload"
	for range 3 {
		_, _ = io.WriteString(wr.Stream(Stdout), canary)
		_ = wr.Note(canary)
		_ = wr.Flush()
	}
	_ = wr.Close(End{Error: canary})
	for _, word := range []string{canary, "shop", w.identity.Recipient().String(), encoding.EncodeToString([]byte(canary))[:20]} {
		if strings.Contains(out.String(), word) {
			t.Errorf("the text shows %q", word)
		}
	}
	size := func(word string) int {
		l := &world{about: w.about, identity: w.identity, signing: w.signing}
		var out bytes.Buffer
		wr, _ := NewWriter(l.boot(t), &out, time.Now)
		_, _ = io.WriteString(wr.Stream(Stdout), word)
		_ = wr.Flush()
		return len(strings.SplitAfter(out.String(), "\n")[1])
	}
	if a, b := size("granted"), size("denied, and why"); a != b {
		t.Errorf("lines of %d and %d bytes tell one word from the other", a, b)
	}
}

func TestRecipients(t *testing.T) {
	classic, _ := age.GenerateX25519Identity()
	second, _ := age.GenerateX25519Identity()
	hybrid, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	c, d, h := classic.Recipient().String(), second.Recipient().String(), hybrid.Recipient().String()
	var many []string
	for range MaxRecipients + 1 {
		id, _ := age.GenerateHybridIdentity()
		many = append(many, id.Recipient().String())
	}
	for name, x := range map[string]struct {
		list []string
		ok   bool
	}{
		"none": {nil, false}, "empty": {[]string{""}, false}, "classic": {[]string{c}, true}, "two": {[]string{c, d}, true},
		"hybrid": {[]string{h}, true}, "mixed": {[]string{c, h}, false}, "twice": {[]string{c, c}, false},
		"upper case": {[]string{strings.ToUpper(c)}, false}, "private": {[]string{classic.String()}, false},
		"ssh": {[]string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA"}, false}, "space": {[]string{c + " "}, false},
		"at most": {many[1:], true}, "too many": {many, false},
	} {
		if _, err := ParseRecipients(x.list); (err == nil) != x.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := newWorld(t)
	recipients, err := ParseRecipients(many[1:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewBoot(w.about, recipients, w.signing); err != nil {
		t.Errorf("as many recipients as allowed: %v", err)
	}
}

// TestPostQuantum: a log for a post-quantum recipient is read with its identity.
func TestPostQuantum(t *testing.T) {
	w := newWorld(t)
	id, _ := age.GenerateHybridIdentity()
	b, err := NewBoot(w.about, []age.Recipient{id.Recipient()}, w.signing)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	wr, _ := NewWriter(b, &out, time.Now)
	_, _ = io.WriteString(wr.Stream(Stderr), "hello")
	_ = wr.Close(End{})
	if s := readAs(w.trusted(), id, out.String()); s.err.String() != "hello" || !s.tail.Ended || s.failed != nil {
		t.Errorf("read %q, %v, %v", s.err.String(), s.troubles, s.failed)
	}
}

// TestFrameKeepsItsPlace: a frame opens under its own number and in its own boot
// alone.
func TestFrameKeepsItsPlace(t *testing.T) {
	w := newWorld(t)
	a, err := newAEAD(w.boot(t).Key)
	if err != nil {
		t.Fatal(err)
	}
	plain := append(make([]byte, chainBytes), append(appendRecord(nil, Stdout, w.now, 1), 'x')...)
	boot, other := bootOf([]byte("a")), bootOf([]byte("b"))
	l, _ := sealFrame(nil, a, boot, 3, plain)
	if _, r, err := l.openFrame(a); err != nil || string(r[0].Data) != "x" {
		t.Fatal(err)
	}
	for name, moved := range map[string]line{"number": {boot: boot, seq: 4, body: l.body}, "boot": {boot: other, seq: 3, body: l.body}} {
		if _, _, err := moved.openFrame(a); err == nil {
			t.Errorf("opened with another %s", name)
		}
	}
}

// TestChain: two frames under one key and number, as of a guest that was copied,
// do not both follow the one before.
func TestChain(t *testing.T) {
	w := newWorld(t)
	b := w.boot(t)
	write := func(first string) []string {
		var out bytes.Buffer
		wr, _ := NewWriter(b, &out, time.Now)
		for _, text := range []string{first, "second\n"} {
			_, _ = io.WriteString(wr.Stream(Stdout), text)
			_ = wr.Flush()
		}
		return strings.SplitAfter(out.String(), "\n")
	}
	one, two := write("one\n"), write("two\n")
	if s := w.read(one[0] + one[1] + two[2]); s.faults() != string(OutOfChain) {
		t.Errorf("faults %q", s.faults())
	}
	if s := w.read(strings.Join(one, "")); s.faults() != "" {
		t.Errorf("faults %q", s.faults())
	}
}
