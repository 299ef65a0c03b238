package workload

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/referrers"
)

// A guesser knows all of a source image but four digits of one variable, as
// whoever knows the public image under it and the names of its settings does.
type guesser struct {
	process, config, manifest string // with pinMark where the digits are
	configDigest              string // as manifest has it
	digests                   map[uint64]string
	prefixes                  []uint64 // bits: first three bytes of the digests
}

const (
	pinMark = "####"
	pin     = "4821"
)

// newGuesser reads the source in the layout dir.
func newGuesser(t *testing.T, dir string) *guesser {
	t.Helper()
	var index imgspec.Index
	read := func(path string, into any) []byte {
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	read(filepath.Join(dir, "index.json"), &index)
	var m imgspec.Manifest
	var c imgspec.Image
	manifest := read(imagetest.BlobPath(dir, index.Manifests[0].Digest), &m)
	config := read(imagetest.BlobPath(dir, m.Config.Digest), &c)
	process, err := kbs.Canonical(processOf(c.Config, func(string) {}))
	if err != nil {
		t.Fatal(err)
	}
	mark := func(b []byte) string {
		if bytes.Count(b, []byte("="+pin)) != 1 {
			t.Fatalf("the secret is not once in %s", b)
		}
		return strings.Replace(string(b), "="+pin, "="+pinMark, 1)
	}
	g := &guesser{process: mark(process), config: mark(config), manifest: string(manifest), configDigest: m.Config.Digest.Encoded()}
	g.digests, g.prefixes = map[uint64]string{}, make([]uint64, 1<<24/64)
	for n := range 10000 {
		g.guess(fmt.Sprintf("%04d", n))
	}
	return g
}

// guess notes every digest that somebody might have published of what is
// behind the digits.
func (g *guesser) guess(digits string) {
	process, config := strings.Replace(g.process, pinMark, digits, 1), strings.Replace(g.config, pinMark, digits, 1)
	manifest := strings.Replace(g.manifest, g.configDigest, digest.FromString(config).Encoded(), 1)
	for _, content := range []string{
		process, process + "\n", "ccrun process v1" + process, config, manifest,
		digest.FromString(config).String(), digest.FromString(manifest).String(),
		digest.FromString(config).Encoded(), digest.FromString(manifest).Encoded(),
	} {
		b := []byte(content)
		s256, s384, s512 := sha256.Sum256(b), sha512.Sum384(b), sha512.Sum512(b)
		for _, sum := range [][]byte{s256[:], s384[:], s512[:]} {
			g.digests[binary.BigEndian.Uint64(sum)] = digits
			p := uint32(sum[0])<<16 | uint32(sum[1])<<8 | uint32(sum[2])
			g.prefixes[p/64] |= 1 << (p % 64)
		}
	}
}

// find looks for any of the digests at any place of b, as bytes, hex digits
// or base64.
func (g *guesser) find(b []byte) string {
	if found := g.scan(b); found != "" {
		return found
	}
	for _, run := range runs(b, isHex, 32) {
		raw, _ := hex.DecodeString(string(run[:len(run)&^1]))
		if found := g.scan(raw); found != "" {
			return found
		}
	}
	for _, run := range runs(b, isBase64, 40) {
		raw, err := base64.RawStdEncoding.DecodeString(string(run))
		if err != nil || len(raw) < 32 {
			continue
		}
		if found := g.find(raw); found != "" {
			return found
		}
	}
	return ""
}

// runs are the parts of b that have nothing but bytes of a kind, at least
// shortest of them. Disks are searched for them, which takes a regular
// expression seconds.
func runs(b []byte, of func(byte) bool, shortest int) (found [][]byte) {
	start := 0
	for i := 0; i <= len(b); i++ {
		if i < len(b) && of(b[i]) {
			continue
		}
		if i-start >= shortest {
			found = append(found, b[start:i])
		}
		start = i + 1
	}
	return found
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

func isBase64(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '+' || c == '/'
}

func (g *guesser) scan(b []byte) string {
	for i := 0; i+8 <= len(b); i++ {
		p := uint32(b[i])<<16 | uint32(b[i+1])<<8 | uint32(b[i+2])
		if g.prefixes[p/64]&(1<<(p%64)) == 0 {
			continue
		}
		if digits, ok := g.digests[binary.BigEndian.Uint64(b[i:])]; ok {
			return digits
		}
	}
	return ""
}

// published is all that registry and host get of the image in a layout: every
// manifest, configuration and attached document, and the layer's files.
func published(t *testing.T, o *Options) map[string][]byte {
	t.Helper()
	dir := strings.Split(o.Destination, ":")[1]
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[p], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	id, _ := identityOf(t, readOutput(t, o.System, o.Destination)) // is compressed in the layer
	if all["identity"], err = id.Encode(); err != nil {
		t.Fatal(err)
	}
	return all
}

// pinnedSource is the app image with a secret of four digits.
func pinnedSource(t *testing.T) string {
	m := imagetest.App(t)
	m.Config.Config.Env = append(m.Config.Config.Env, "DB_PIN="+pin)
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	return dir
}

// TestNothingToGuessAgainst: nothing that registry or host see of an image lets
// them try guesses of a short secret in its configuration, however it was built
// and whatever is attached to it.
func TestNothingToGuessAgainst(t *testing.T) {
	t.Parallel()
	dir := pinnedSource(t)
	g := newGuesser(t, dir)
	for name, options := range map[string]func() Options{
		"random keys":  func() Options { return testOptions(t, &fakeServer{}) },
		"reproducible": func() Options { return reproducibleOptions(t, &fakeServer{}) },
		"signed": func() Options {
			o := testOptions(t, &fakeServer{})
			o.Sign, _ = signingKey(t, owner)
			return o
		},
	} {
		o := options()
		o.Source, o.Attach = "oci:"+dir, []string{AttachRecord, AttachProvenance, AttachSBOM}
		mustBuild(t, o)
		for file, b := range published(t, &o) {
			if found := g.find(b); found != "" {
				t.Errorf("%s: %s tells the secret: %s", name, file, found)
			}
		}
	}
}

// TestGuesserFinds: what it looks for, it finds, in each of the forms that
// images of older versions published.
func TestGuesserFinds(t *testing.T) {
	t.Parallel()
	dir := pinnedSource(t)
	g := newGuesser(t, dir)
	process := []byte(strings.Replace(g.process, pinMark, pin, 1))
	config := strings.Replace(g.config, pinMark, pin, 1)
	unkeyed := kbs.Sum384(process) // what process_digest was in version 1
	for name, b := range map[string][]byte{
		"hex":            []byte(`{"process_digest":"` + unkeyed.String() + `"}`),
		"bytes":          append([]byte("anything"), unkeyed[:]...),
		"base64 of text": []byte(`{"identity":"` + base64.StdEncoding.EncodeToString([]byte(`{"process_digest":"`+unkeyed.String()+`"}`)) + `"}`),
		"configuration":  []byte(digest.FromString(config)),
		"source label":   []byte(digest.FromString(g.manifest)),
	} {
		if found := g.find(b); found != pin {
			t.Errorf("%s: found %q", name, found)
		}
	}
	if found := g.find([]byte(kbs.Sum384([]byte("something else")).String())); found != "" {
		t.Errorf("found %s in what says nothing", found)
	}
}

// TestPublishedSourceIsFound: who asks for it, publishes it; and each of the
// places where it then stands would be noticed above.
func TestPublishedSourceIsFound(t *testing.T) {
	t.Parallel()
	dir := pinnedSource(t)
	g := newGuesser(t, dir)
	o := testOptions(t, &fakeServer{})
	o.Source, o.Attach, o.PublishSource = "oci:"+dir, []string{AttachRecord, AttachProvenance, AttachSBOM}, true
	res := mustBuild(t, o)
	found := 0
	for _, b := range published(t, &o) {
		if g.find(b) == pin {
			found++
		}
	}
	if found != 5 { // manifest, configuration, record, provenance, SBOM
		t.Errorf("found in %d of what was published, expected 5", found)
	}
	out := readOutput(t, o.System, o.Destination)
	if out.labels[krun.LabelSource] != res.SourceDigest {
		t.Errorf("label %q", out.labels[krun.LabelSource])
	}
}

// TestOwnerKnowsTheSource: the owner's record knows what all others must not. The
// registration in it is the same to the byte as at the server and as attached, or
// nobody could approve it by the one that he has.
func TestOwnerKnowsTheSource(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	o.RecordPath = filepath.Join(t.TempDir(), "record")
	key, pub := signingKey(t, owner)
	o.Sign, o.Attach = key, []string{AttachRecord, AttachProvenance}
	res := mustBuild(t, o)
	record, err := ReadRecord(o.RecordPath)
	if err != nil || record.Source != res.SourceDigest || record.Source == "" {
		t.Fatalf("the record knows %+v, %v", record, err)
	}
	attached := attachedRecord(t, o, res)
	if attached.Source != "" {
		t.Errorf("published: %s", attached.Source)
	}
	registered := imagetest.JSON(t, server.the(t).Registration)
	for name, r := range map[string]*kbs.Record{"own record": record, "attached record": attached} {
		if got := imagetest.JSON(t, r.Registration); !bytes.Equal(got, registered) {
			t.Errorf("%s registers %s, the server %s", name, got, registered)
		}
	}
	verify := VerifyOptions{Image: o.Destination, KeyPath: pub, System: o.System}
	v, err := VerifyImage(t.Context(), verify)
	if err != nil || !v.Pass || v.Source != "" {
		t.Errorf("without the record: %+v, %v", v, err)
	}
	verify.Record = record
	if v, err = VerifyImage(t.Context(), verify); err != nil || !v.Pass || v.Source != res.SourceDigest {
		t.Errorf("with the record: %+v, %v", v, err)
	}
	for name, spoil := range map[string]func(*kbs.Registration){
		"identity": func(r *kbs.Registration) { r.IdentityDigest[0] ^= 1 },
		"image":    func(r *kbs.Registration) { r.Image = "sha256:" + strings.Repeat("0", 64) },
	} {
		other := *record
		spoil(&other.Registration)
		verify.Record = &other
		if v, err = VerifyImage(t.Context(), verify); err != nil || v.Pass {
			t.Errorf("record of another %s: %+v, %v", name, v, err)
		}
	}
}

// attachedRecord is the record that anyone can read beside the image.
func attachedRecord(t *testing.T, o Options, res *Result) *kbs.Record {
	t.Helper()
	store, err := referrers.Open(o.System, o.Destination)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := referrers.Read(t.Context(), store, digest.Digest(res.Digest))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range docs {
		if d.Type != referrers.TypeRecord {
			continue
		}
		var r kbs.Record
		if err := kbs.UnmarshalStrict(d.Content, &r); err != nil {
			t.Fatal(err)
		}
		return &r
	}
	t.Fatal("no record attached")
	return nil
}

// TestOldIdentityIsWarnedOf: an image of before is still right, and says what is
// not good about it.
func TestOldIdentityIsWarnedOf(t *testing.T) {
	t.Parallel()
	o := testOptions(t, &fakeServer{})
	mustBuild(t, o)
	in, err := Inspect(t.Context(), o.System, o.Destination, nil)
	if err != nil || len(in.Warnings) != 0 {
		t.Fatalf("%v, %v", in.Warnings, err)
	}
	in.Initrd.Identity.Version = 1
	in.compare()
	if len(in.Warnings) != 2 || len(in.Problems) != 0 {
		t.Errorf("warnings %q, problems %q", in.Warnings, in.Problems)
	}
}
