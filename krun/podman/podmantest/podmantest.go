// Package podmantest answers like Podman's API, of containers and images that a
// test made up.
package podmantest

import (
	"archive/tar"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// Podman is what is there.
type Podman struct {
	Runtime    string // name of the default one
	Path       string // and its path
	Containers []Container
	Images     map[string]map[string]string // labels, by name
}

// Container is one of its containers.
type Container struct {
	ID, Name, Image, State string
	StartedAt, ExitedAt    int64
	ExitCode               int
	Infra                  bool
	Labels                 map[string]string
	Files                  map[string]string // by path
	LowerDir               string            // where the image's layers are
	Log                    string            // of standard error
	CPU                    float64
	Memory                 uint64
}

// Serve serves p until the test ends, and returns the URL for --url.
func Serve(t testing.TB, p Podman) string {
	t.Helper()
	mux := http.NewServeMux()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Libpod-API-Version", "5.6.2")
		if _, path, ok := strings.Cut(r.URL.Path, "/libpod"); ok {
			r.URL.Path = path
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	mux.HandleFunc("GET /_ping", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("OK")) })
	mux.HandleFunc("GET /info", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"host": map[string]any{"ociRuntime": map[string]any{"name": p.Runtime, "path": p.Path}}})
	})
	mux.HandleFunc("GET /containers/json", p.list)
	mux.HandleFunc("GET /containers/stats", p.stats)
	mux.HandleFunc("GET /containers/{id}/logs", p.logs)
	mux.HandleFunc("GET /containers/{id}/archive", p.archive)
	mux.HandleFunc("GET /containers/{id}/json", p.inspect)
	mux.HandleFunc("GET /images/{rest...}", p.image)
	mux.HandleFunc("POST /images/pull", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"error": "initializing source: no such host"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { missing(w, r.Method+" "+r.URL.Path) })
	return "tcp://" + strings.TrimPrefix(s.URL, "http://")
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func missing(w http.ResponseWriter, what string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_ = json.NewEncoder(w).Encode(map[string]any{"cause": "no such object", "message": "no such object: " + what, "response": 404})
}

func (p *Podman) list(w http.ResponseWriter, r *http.Request) {
	list := []map[string]any{}
	for _, c := range p.Containers {
		if c.State == "running" || r.URL.Query().Get("all") == "true" {
			list = append(list, map[string]any{
				"Id": c.ID, "Names": []string{c.Name}, "Image": c.Image, "State": c.State, "StartedAt": c.StartedAt, "ExitedAt": c.ExitedAt,
				"Exited": c.State == "exited", "ExitCode": c.ExitCode, "IsInfra": c.Infra, "Labels": c.Labels,
			})
		}
	}
	answer(w, list)
}

func (p *Podman) container(r *http.Request) (Container, bool) {
	for _, c := range p.Containers {
		if c.ID == r.PathValue("id") || c.Name == r.PathValue("id") {
			return c, true
		}
	}
	return Container{}, false
}

func (p *Podman) inspect(w http.ResponseWriter, r *http.Request) {
	c, ok := p.container(r)
	if !ok {
		missing(w, r.PathValue("id"))
		return
	}
	answer(w, map[string]any{"Id": c.ID, "Name": c.Name, "State": map[string]any{"Running": c.State == "running"},
		"GraphDriver": map[string]any{"Name": "overlay", "Data": map[string]string{"LowerDir": c.LowerDir}}})
}

func (p *Podman) logs(w http.ResponseWriter, r *http.Request) {
	c, ok := p.container(r)
	if !ok {
		missing(w, r.PathValue("id"))
		return
	}
	for line := range strings.Lines(c.Log) {
		var head [8]byte
		head[0] = 2
		binary.BigEndian.PutUint32(head[4:], uint32(len(line)))
		_, _ = w.Write(append(head[:], line...))
	}
}

func (p *Podman) archive(w http.ResponseWriter, r *http.Request) {
	c, _ := p.container(r)
	text, ok := c.Files[r.URL.Query().Get("path")]
	if !ok {
		missing(w, r.URL.Query().Get("path"))
		return
	}
	t := tar.NewWriter(w)
	_ = t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file", Mode: 0o444, Size: int64(len(text))})
	_, _ = t.Write([]byte(text))
	_ = t.Close()
}

func (p *Podman) stats(w http.ResponseWriter, r *http.Request) {
	stats := []map[string]any{}
	for _, c := range p.Containers {
		for _, id := range r.URL.Query()["containers"] {
			if id == c.ID {
				stats = append(stats, map[string]any{"ContainerID": c.ID, "Name": c.Name, "CPU": c.CPU, "MemUsage": c.Memory, "PIDs": 3})
			}
		}
	}
	answer(w, map[string]any{"Error": nil, "Stats": stats})
}

func (p *Podman) image(w http.ResponseWriter, r *http.Request) {
	name, asks := strings.CutSuffix(r.PathValue("rest"), "/exists")
	name = strings.TrimSuffix(name, "/json")
	labels, ok := p.Images[name]
	switch {
	case !ok:
		missing(w, name)
	case asks:
		w.WriteHeader(http.StatusNoContent)
	default:
		answer(w, map[string]any{"Id": "sha256:1", "Labels": labels})
	}
}
