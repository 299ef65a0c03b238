package destination

import (
	"cmp"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// push writes an image whose layer has size bytes, the same whenever they are
// made.
func push(ctx context.Context, sys *types.SystemContext, name string, size int64) (blob.Info, error) {
	d, _, err := Open(ctx, sys, name)
	if err != nil {
		return blob.Info{}, err
	}
	defer d.Close()
	layer, err := d.PutLayer(ctx, size, func(ctx context.Context, w io.Writer) error {
		random := rand.NewChaCha8([32]byte{1})
		for left := size; left > 0; left -= min(left, 1<<20) {
			if _, err := io.CopyN(w, random, min(left, 1<<20)); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err != nil {
		return layer, err
	}
	config := []byte(`{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + layer.Digest.String() + `"]}}`)
	mf, err := json.Marshal(imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest,
		Config: imgspec.Descriptor{MediaType: imgspec.MediaTypeImageConfig, Digest: digest.FromBytes(config), Size: int64(len(config))},
		Layers: []imgspec.Descriptor{{MediaType: imgspec.MediaTypeImageLayer, Digest: layer.Digest, Size: layer.Size}},
	})
	if err != nil {
		return layer, err
	}
	return layer, d.Publish(ctx, config, mf)
}

// checkPushed expects the layer, and the image under its name, in a repository.
func checkPushed(t *testing.T, repository string, layer blob.Info) {
	t.Helper()
	get := func(path string) *http.Response {
		req, err := http.NewRequest(http.MethodGet, repository+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t") // where one is asked for
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	resp := get("/blobs/" + layer.Digest.String())
	if d, err := digest.FromReader(resp.Body); err != nil || d != layer.Digest || resp.ContentLength != layer.Size {
		t.Errorf("the registry has a layer %s of %d bytes, expected %v (%v)", d, resp.ContentLength, layer, err)
	}
	if resp := get("/manifests/1"); resp.StatusCode != http.StatusOK {
		t.Errorf("the image has no name: %s", resp.Status)
	}
}

// TestHostilePush pushes to registries on a bad day.
func TestHostilePush(t *testing.T) {
	t.Parallel()
	type step func(*imagetest.Hostile, http.ResponseWriter, *http.Request)
	read := func(n int64) step {
		return func(_ *imagetest.Hostile, _ http.ResponseWriter, r *http.Request) {
			_, _ = io.CopyN(io.Discard, r.Body, n)
		}
	}
	drop := func(*imagetest.Hostile, http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	hang := func(h *imagetest.Hostile, w http.ResponseWriter, r *http.Request) { h.Hang(); drop(h, w, r) }
	answer := func(code int) step {
		return func(_ *imagetest.Hostile, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	type row struct {
		method, part string
		times        int
		steps        []step
		want         string
		stall        time.Duration // a minute if it hangs nowhere
	}
	imagetest.AtOnce(t, map[string]row{
		"cut, then fine":            {method: "PATCH", times: 1, steps: []step{read(18 << 20), drop}},
		"stops taking, then fine":   {method: "PATCH", times: 1, steps: []step{read(18 << 20), hang}, stall: 700 * time.Millisecond},
		"429 to data, then fine":    {method: "PATCH", times: 1, steps: []step{answer(429)}},
		"503 at the end, then fine": {method: "PUT", part: "/uploads/", times: 1, steps: []step{answer(503)}},
		"silent ping, then fine":    {method: "GET", part: "/v2/", times: 1, steps: []step{hang}, stall: 700 * time.Millisecond},
		"manifest 502, then fine":   {method: "PUT", part: "/manifests/", times: 1, steps: []step{answer(502)}},
		"cut for ever":              {method: "PATCH", times: imagetest.Always, steps: []step{read(1 << 20), drop}, want: "pushing failed 3 times"},
		"stops taking for ever":     {method: "PATCH", times: imagetest.Always, steps: []step{hang}, want: "registry does not answer", stall: 700 * time.Millisecond},
		"denied":                    {method: "POST", times: imagetest.Always, steps: []step{answer(403)}, want: "403"},
		"no room":                   {method: "PUT", part: "/uploads/", times: imagetest.Always, steps: []step{answer(507)}, want: "507"},
		"manifest refused":          {method: "PUT", part: "/manifests/", times: imagetest.Always, steps: []step{answer(400)}, want: "manifest"},
	}, func(t *testing.T, c row) {
		h := &imagetest.Hostile{Part: c.part, Method: c.method}
		h.Act = func(w http.ResponseWriter, r *http.Request, n int) bool {
			for _, s := range c.steps {
				if n <= c.times {
					s(h, w, r)
				}
			}
			return n <= c.times
		}
		sys := imagetest.System(t)
		host := imagetest.Registry(t, sys, h.Front)
		p := registry.Patience{Stall: cmp.Or(c.stall, time.Minute), Retries: 2, Delay: 10 * time.Millisecond}
		if c.stall > 0 && c.want == "" {
			p.Retries = 20 // a slow machine stops now and then, too
		}
		info, err := push(registry.WithPatience(t.Context(), p), sys, "docker://"+host+"/app:1", 20<<20)
		h.GiveUp()
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want == "":
			checkPushed(t, "http://"+host+"/v2/app", info)
		case err == nil || !strings.Contains(err.Error(), c.want):
			t.Errorf("error %v, expected %q in it", err, c.want)
		}
	})
}
