package source

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	tarsplit "github.com/vbatts/tar-split/tar/storage"
)

// packed is a tar-split with entries of many kinds.
func packed(t testing.TB) []byte {
	var b bytes.Buffer
	p := tarsplit.NewJSONPacker(&b)
	for i, e := range []tarsplit.Entry{
		{Type: tarsplit.SegmentType, Payload: []byte("header")},
		{Type: tarsplit.FileType, Name: "a", Size: 5, Payload: make([]byte, 8)},
		{Type: tarsplit.SegmentType, Payload: bytes.Repeat([]byte{0, 255}, 1<<19)}, // longer than any buffer
		{Type: tarsplit.FileType, Name: "raw\xff", Size: 1, Payload: make([]byte, 8)},
		{Type: tarsplit.FileType, Name: `quo"te` + "\n<&>"},
		{Type: tarsplit.SegmentType, Payload: []byte{}},
	} {
		if _, err := p.AddEntry(e); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	return b.Bytes()
}

func readSplit(b []byte) (out []tarsplit.Entry, err error) {
	for r := newSplitReader(bytes.NewReader(b)); ; {
		e, err := r.next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		c := *e
		c.Payload, c.Position = bytes.Clone(c.Payload), 0
		out = append(out, c)
	}
}

func librarySplitEntries(b []byte) (out []tarsplit.Entry, err error) {
	for u := tarsplit.NewJSONUnpacker(bytes.NewReader(b)); ; {
		e, err := u.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		e.Position = 0
		out = append(out, *e)
	}
}

func TestSplitReader(t *testing.T) {
	b := packed(t)
	for name, in := range map[string][]byte{"as written": b, "last newline missing": bytes.TrimSuffix(b, []byte("\n"))} {
		got, err := readSplit(in)
		want, werr := librarySplitEntries(in)
		if err != nil || werr != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v, or entries differ", name, err, werr)
		}
	}
	for name, in := range map[string]string{
		"truncated":     string(b[:20]),
		"no base64":     `{"type":2,"payload":"!!!!","position":0}`,
		"negative size": `{"type":1,"name":"x","size":-1,"payload":null,"position":0}`,
		"another type":  `{"type":3,"payload":null,"position":0}`,
		"endless line":  strings.Repeat("x", maxSplitLine+70000),
		"no JSON":       "\n",
	} {
		if _, err := readSplit([]byte(in)); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// FuzzSplitReader: what is read is what the library reads.
func FuzzSplitReader(f *testing.F) {
	f.Add(packed(f)[:200])
	f.Add([]byte(`{"type":2,"payload":"aGVhZGVy","position":0}` + "\n" + `{"type":1,"name":"a","payload":"","position":1}`))
	f.Add([]byte(`{"type":2,"payload":"aA==","position":0,"payload":"bQ=="}`))
	f.Add([]byte(`{"type":1,"name":"a\u003c","size":12,"payload":null,"position":1}` + "\n" + `{"type":1,"name":"b","size":012,"payload":null,"position":1}`))
	f.Add([]byte(`{"type":1,"name":"a","size":999999999999999999,"payload":"AAAAAAAAAAA=","position":0,"name":"b"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readSplit(b)
		if err != nil {
			return
		}
		want, werr := librarySplitEntries(b)
		if errors.Is(werr, tarsplit.ErrDuplicatePath) {
			return // whatever is read twice fails at the layer's digest, or is right
		}
		for i := range min(len(got), len(want)) {
			if got[i].Type != want[i].Type || got[i].GetName() != want[i].GetName() || got[i].Size != want[i].Size || !bytes.Equal(got[i].Payload, want[i].Payload) {
				t.Fatalf("entry %d: %+v, library %+v", i, got[i], want[i])
			}
		}
	})
}
