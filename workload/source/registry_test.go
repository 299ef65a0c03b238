package source

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containers/image/v5/types"
	fakeregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// readAll reads an image as a build does: all headers, then all contents.
func readAll(ctx context.Context, sys *types.SystemContext, name, dir string) error {
	src, err := Open(ctx, name, Options{System: sys, TempDir: dir})
	if err != nil {
		return err
	}
	defer src.Close()
	tree, err := src.Tree(ctx, func(int64) {})
	if err == nil {
		err = tree.Contents(ctx, func(_ *rootfs.Node, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		})
	}
	if err == nil {
		err = src.Verified()
	}
	return err
}

// TestHostileRegistry pulls from registries on a bad day. Each either recovers
// or fails with an error that says what was wrong, leaving nothing.
func TestHostileRegistry(t *testing.T) {
	t.Parallel()
	m, blob := imagetest.Big(t, 3<<20)
	d := digest.FromBytes(blob)
	other := append(bytes.Clone(blob[:len(blob)-1]), blob[len(blob)-1]^1)
	plain := func(b []byte, length int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			if length > 0 {
				w.Header().Set("Content-Length", fmt.Sprint(length))
			}
			for len(b) > 0 { // chunked when no length is given
				n := min(len(b), 100_000)
				_, _ = w.Write(b[:n])
				w.(http.Flusher).Flush()
				b = b[n:]
			}
			return true
		}
	}
	trickle := func(w http.ResponseWriter, r *http.Request, _ int) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(blob)))
		for i := range blob {
			if _, err := w.Write(blob[i : i+1]); err != nil || r.Context().Err() != nil {
				break
			}
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond)
		}
		return true
	}
	silent := func(times int) func(http.ResponseWriter, *http.Request, int) bool {
		return func(_ http.ResponseWriter, r *http.Request, n int) bool {
			if n <= times {
				imagetest.WaitGone(r)
			}
			return n <= times
		}
	}
	const layer, manifest = "/blobs/", "/manifests/"
	const short, long = 200 * time.Millisecond, 1300 * time.Millisecond // the library pauses for over a second before it resumes
	type row struct {
		part     string
		act      func(http.ResponseWriter, *http.Request, int) bool
		want     string // in the error; empty: recovers
		requests int64  // if not 0, exactly so many
		ranged   bool
		// stall is when the silent are given up: after a minute if it is no
		// silence that the row is about, so that a slow machine is none either.
		stall time.Duration
	}
	imagetest.AtOnce(t, map[string]row{
		"429, then fine":             {part: layer, act: imagetest.Status(2, 429), requests: 3},
		"503, then fine":             {part: layer, act: imagetest.Status(2, 503), requests: 3},
		"500, then fine":             {part: layer, act: imagetest.Status(1, 500), requests: 2},
		"reset, then fine":           {part: layer, act: imagetest.Reset(1)},
		"manifest: 503, then fine":   {part: manifest, act: imagetest.Status(1, 503)},
		"manifest: reset, then fine": {part: manifest, act: imagetest.Reset(1)},
		"manifest: silent, then ok":  {part: manifest, act: silent(1), stall: short},
		"ping: 502, then fine":       {part: "/v2/", act: imagetest.Status(1, 502)},
		"cut, resumed":               {part: layer, act: imagetest.Sending(blob, 2, 1200<<10, true, false), ranged: true},
		"cut, no ranges":             {part: layer, act: imagetest.Sending(blob, 1, 1200<<10, false, false)},
		"stalls, resumed":            {part: layer, act: imagetest.Sending(blob, 1, 1200<<10, true, true), ranged: true, stall: long},
		"stalls, no ranges":          {part: layer, act: imagetest.Sending(blob, 1, 1200<<10, false, true), stall: long},
		"silent, then fine":          {part: layer, act: silent(1), stall: short},

		"429 for ever":            {part: layer, act: imagetest.Status(imagetest.Always, 429), want: "layer 1"},
		"503 for ever":            {part: layer, act: imagetest.Status(imagetest.Always, 503), want: "503", requests: 3},
		"cut for ever":            {part: layer, act: imagetest.Sending(blob, imagetest.Always, 1000, false, false), want: "failed 3 times, with 1000 bytes received"},
		"stalls for ever":         {part: layer, act: imagetest.Sending(blob, imagetest.Always, 1000, true, true), want: "registry does not answer", stall: long},
		"trickles":                {part: layer, act: trickle, want: "registry does not answer", stall: short},
		"silent":                  {part: layer, act: silent(imagetest.Always), want: "registry does not answer", stall: short},
		"manifest: silent":        {part: manifest, act: silent(imagetest.Always), want: "registry does not answer", stall: short},
		"no such blob":            {part: layer, act: imagetest.Status(imagetest.Always, 404), want: "404", requests: 1},
		"denied":                  {part: layer, act: imagetest.Status(imagetest.Always, 403), want: "layer 1", requests: 1},
		"truncated, clean end":    {part: layer, act: plain(blob[:len(blob)/2], 0), want: "does not match its digest"},
		"too long":                {part: layer, act: plain(append(bytes.Clone(blob), 1, 2, 3), 0), want: "more than the"},
		"other content":           {part: layer, act: plain(other, len(other)), want: "does not match its digest"},
		"announces too much":      {part: layer, act: plain(blob, len(blob)+1), want: fmt.Sprintf("announces %d bytes, the manifest says %d", len(blob)+1, len(blob))},
		"announces too little":    {part: layer, act: plain(blob, len(blob)-1), want: fmt.Sprintf("announces %d bytes, the manifest says %d", len(blob)-1, len(blob))},
		"sends an error as 200":   {part: layer, act: plain([]byte("<html>"), 0), want: "does not match its digest"},
		"manifest: other content": {part: manifest, act: plain([]byte(`{"schemaVersion":2}`), 0), want: "manifest"},
	}, func(t *testing.T, c row) {
		h := &imagetest.Hostile{Part: c.part, Method: http.MethodGet, Act: c.act}
		if c.part == layer {
			h.Part += d.String()
		}
		sys, dir := imagetest.System(t), t.TempDir()
		repo := imagetest.Registry(t, sys, h.Front) + "/app"
		m.Upload(t, repo)
		p := registry.Patience{Stall: cmp.Or(c.stall, time.Minute), Retries: 2, Delay: 10 * time.Millisecond}
		if c.stall > 0 && c.want == "" {
			p.Retries = 20 // a slow machine is silent, too
		}
		err := readAll(registry.WithPatience(t.Context(), p), sys, "docker://"+repo+":1", dir)
		if n := h.N.Load(); c.requests != 0 && n != c.requests {
			t.Errorf("%d requests, expected %d", n, c.requests)
		}
		if c.ranged && h.Ranges.Load() == 0 {
			t.Error("not resumed by Range")
		}
		imagetest.Empty(t, dir)
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("error %v, expected %q in it", err, c.want)
		}
	})
}

// TestStallOverTLS: there, what has to be ended is the connection below.
func TestStallOverTLS(t *testing.T) {
	t.Parallel()
	m, blob := imagetest.Big(t, 3<<20)
	h := &imagetest.Hostile{Part: "/blobs/" + digest.FromBytes(blob).String(), Method: http.MethodGet, Act: imagetest.Sending(blob, 1, 1200<<10, true, true)}
	s := httptest.NewUnstartedServer(h.Front(fakeregistry.New(fakeregistry.Logger(log.New(io.Discard, "", 0)))))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	sys := imagetest.System(t)
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	repo := strings.TrimPrefix(s.URL, "https://") + "/app"
	m.UploadWith(t, s.Client(), "https://", repo)
	ctx := registry.WithPatience(t.Context(), registry.Patience{Stall: 1300 * time.Millisecond, Retries: 20})
	if err := readAll(ctx, sys, "docker://"+repo+":1", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	if h.Ranges.Load() == 0 { // more on a slow machine
		t.Error("not resumed by Range")
	}
}

// TestCancelWhileWaiting: neither a silent registry nor a pause between
// attempts holds a reader that is interrupted.
func TestCancelWhileWaiting(t *testing.T) {
	t.Parallel()
	m, blob := imagetest.Big(t, 1<<20)
	for name, p := range map[string]registry.Patience{"silent": {Stall: time.Minute}, "pause": {Stall: 50 * time.Millisecond, Delay: time.Minute}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var once sync.Once
			var cancelled time.Time
			h := &imagetest.Hostile{Part: "/blobs/" + digest.FromBytes(blob).String(), Method: http.MethodGet, Act: func(_ http.ResponseWriter, r *http.Request, _ int) bool {
				once.Do(func() { time.AfterFunc(300*time.Millisecond, func() { cancelled = time.Now(); cancel() }) })
				imagetest.WaitGone(r)
				return true
			}}
			sys, dir := imagetest.System(t), t.TempDir()
			repo := imagetest.Registry(t, sys, h.Front) + "/app"
			m.Upload(t, repo)
			if err := readAll(registry.WithPatience(ctx, p), sys, "docker://"+repo+":1", dir); !errors.Is(err, context.Canceled) || time.Since(cancelled) > 30*time.Second {
				t.Errorf("error %v, %v after it was cancelled", err, time.Since(cancelled))
			}
			imagetest.Empty(t, dir)
		})
	}
}
