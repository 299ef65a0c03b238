package rootfs

import (
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestDirectory compares a directory with a map, over a random life.
func TestDirectory(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for _, names := range []int{3, 8, 9, 40, 700} {
		dir, want := &Node{Kind: Directory}, map[string]*Node{}
		step := func(i int) {
			name := fmt.Sprint("n", rnd.Intn(names))
			if rnd.Intn(3) == 0 && i < 20*names { // a sealed one loses no names
				dir.remove(name)
				delete(want, name)
				return
			}
			n := &Node{ordinal: int32(i)}
			dir.set(name, n, 0)
			want[name] = n
		}
		for i := range 20 * names {
			if step(i); dir.child("n1").Node != want["n1"] {
				t.Fatalf("%d names, step %d: found %v", names, i, dir.child("n1"))
			}
		}
		dir.seal()
		for i := range 5 {
			step(20*names + i)
		}
		got := map[string]*Node{}
		for _, e := range dir.Children() {
			got[e.Name] = e.Node
			if dir.child(e.Name).Node != e.Node {
				t.Errorf("%q is listed but not found", e.Name)
			}
		}
		if !reflect.DeepEqual(got, want) || len(got) != dir.ChildCount() {
			t.Errorf("%d names: got %d, expected %d", names, len(got), len(want))
		}
		if !slices.IsSortedFunc(dir.Children(), func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }) {
			t.Error("not in order")
		}
	}
}

// TestIndexKeeps: what goes into an index comes out of it.
func TestIndexKeeps(t *testing.T) {
	want := []entry{
		{name: "/", typeflag: '5', perm: 0o755},
		{name: "/usr/bin/a", typeflag: '0', perm: 0o4755, sec: -5, nsec: 999999999, uid: 1<<32 - 2, gid: 7, size: 1 << 61},
		{name: "/usr/bin/ab", typeflag: '2', rare: &rare{link: "../x"}},
		{name: "/us", typeflag: '3', rare: &rare{major: 4095, minor: 1 << 19}},
		{name: "/" + strings.Repeat("é", 100), typeflag: '0', rare: &rare{xattrs: []Xattr{{"user.e", []byte{}}, {"user.v", []byte(strings.Repeat("v", 64<<10))}}}},
		{name: "/sparse", typeflag: '0', rare: &rare{sparse: true, data: []Range{{4096, 4096}, {1 << 40, 1}}}},
		{name: "/hole", typeflag: '0', rare: &rare{sparse: true, data: []Range{}}},
		{typeflag: 'g'},
	}
	for i := range 9000 { // over many slabs
		want = append(want, entry{name: fmt.Sprintf("/usr/share/%050d", i), typeflag: '0', sec: int64(i)})
	}
	idx := &Index{}
	for i := range want {
		idx.add(&want[i])
	}
	d := decoder{idx: idx}
	for i, w := range want {
		if got, ok := d.next(); !ok || !reflect.DeepEqual(got, w) {
			t.Fatalf("entry %d: got %+v, expected %+v (%v)", i, got, w, d.err)
		}
	}
	if _, ok := d.next(); ok || d.err != nil {
		t.Errorf("more than was put in, or %v", d.err)
	}
}

// TestMetaLimit: many entries of attributes, or of holes, each within its own
// limits, together want more memory than there is to give.
func TestMetaLimit(t *testing.T) {
	var attrs, names []ent
	for i := range 40 {
		attrs = append(attrs, f(fmt.Sprint("f", i), "").xattr("user.x", strings.Repeat("v", 60<<10)))
		names = append(names, f(strings.Repeat("n", 250)+fmt.Sprint(i), ""))
	}
	for name, l := range map[string]*memLayer{"attributes": layer(t, attrs...), "names": layer(t, names...)} {
		limit := int64(len(names) * 20)
		if name == "attributes" {
			limit = 1 << 20
		}
		for _, meta := range []int64{limit, 0} {
			_, err := scanAndMerge(t.Context(), Limits{MetaBytes: meta}, l)
			if errors.Is(err, ErrLimit) != (meta != 0) {
				t.Errorf("%s with a limit of %d bytes: %v", name, meta, err)
			}
		}
	}
}
