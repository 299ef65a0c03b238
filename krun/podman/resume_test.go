package podman

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"

	nettypes "github.com/containers/common/libnetwork/types"
	"github.com/containers/podman/v5/pkg/bindings"

	"github.com/ccrun/ccrun/hint"
)

// TestRecipe: what a container is made of decides whether it is started again.
func TestRecipe(t *testing.T) {
	base := Container{Image: "localhost/a", Name: "a", Pull: "missing", Resume: true}
	first, err := base.recipe("id", "krun")
	if err != nil || first == "" {
		t.Fatal(first, err)
	}
	if again, _ := base.recipe("id", "krun"); again != first {
		t.Error("the same gives another recipe")
	}
	seen := map[string]string{first: "nothing"}
	for name, change := range map[string]func(*Container){
		"ports":       func(c *Container) { c.Ports = []nettypes.PortMapping{{HostPort: 1, ContainerPort: 2}} },
		"network":     func(c *Container) { c.Network = "host" },
		"annotations": func(c *Container) { c.Annotations = map[string]string{"a": "b"} },
		"labels":      func(c *Container) { c.Labels = map[string]string{"a": "b"} },
		"stop":        func(c *Container) { c.StopSeconds = 7 },
	} {
		c := base
		change(&c)
		got, _ := c.recipe("id", "krun")
		if other, ok := seen[got]; ok {
			t.Errorf("%s: as with %s", name, other)
		}
		seen[got] = name
	}
	for _, x := range [][2]string{{"other", "krun"}, {"id", "krun-sim"}} {
		if got, _ := base.recipe(x[0], x[1]); seen[got] != "" {
			t.Errorf("%v: as with %s", x, seen[got])
		}
	}
}

// fakePodman answers for one container, and notes what is done to it.
type fakePodman struct {
	status  int
	label   string
	running bool
	done    []string
}

func (f *fakePodman) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Libpod-API-Version", "5.0.0")
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
	case strings.HasSuffix(r.URL.Path, "/json"):
		w.WriteHeader(f.status)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"cause": "x", "message": "y", "response": f.status, "Id": "found",
			"Config": map[string]any{"Labels": map[string]string{resumeLabel: f.label}}, "State": map[string]any{"Running": f.running},
		})
	default:
		f.done = append(f.done, r.Method+" "+path.Base(r.URL.Path))
		if r.Method == http.MethodDelete {
			fmt.Fprint(w, "[]")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

// TestResumable: only a container of ours, made of the same, is started again;
// only one of ours is removed.
func TestResumable(t *testing.T) {
	for name, c := range map[string]struct {
		fake fakePodman
		id   string
		done string
		err  string
	}{
		"none there":      {fakePodman{status: 404}, "", "", ""},
		"the same":        {fakePodman{status: 200, label: "same"}, "found", "", ""},
		"the same, runs":  {fakePodman{status: 200, label: "same", running: true}, "found", "POST stop", ""},
		"another":         {fakePodman{status: 200, label: "other"}, "", "DELETE a", ""},
		"another, runs":   {fakePodman{status: 200, label: "other", running: true}, "", "POST stop,DELETE a", ""},
		"somebody else's": {fakePodman{status: 200, running: true}, "", "", "podman rm a"},
		"trouble":         {fakePodman{status: 500}, "", "", "looking for container a"},
	} {
		fake := c.fake
		srv := httptest.NewServer(&fake)
		conn, err := bindings.NewConnection(context.Background(), "tcp"+strings.TrimPrefix(srv.URL, "http"))
		if err != nil {
			t.Fatal(err)
		}
		id, err := new(Service).resumable(conn, &Container{Name: "a"}, "same")
		srv.Close()
		if id != c.id || (err != nil) != (c.err != "") || err != nil && !strings.Contains(fmt.Sprint(err, hint.Of(err)), c.err) {
			t.Errorf("%s: %q, %v", name, id, err)
		}
		if done := strings.ReplaceAll(strings.Join(fake.done, ","), "DELETE found", "DELETE a"); done != c.done {
			t.Errorf("%s: did %s, expected %s", name, done, c.done)
		}
	}
}
