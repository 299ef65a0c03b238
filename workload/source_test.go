package workload

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/registry"
)

// TestSources builds from every kind of local source and expects the same
// content in the disk.
func TestSources(t *testing.T) {
	t.Parallel()
	layout := t.TempDir()
	m := imagetest.App(t)
	m.WriteLayout(t, layout)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		imagetest.WriteFile(t, p, b)
		return p
	}
	saved := m.DockerSave(t)
	for name, source := range map[string]string{
		"oci":                   "oci:" + layout,
		"oci-archive":           "oci-archive:" + write("a.tar", imagetest.TarOfDir(t, layout)),
		"oci-archive gzip":      "oci-archive:" + write("a.tgz", imagetest.Gzip(t, imagetest.TarOfDir(t, layout))),
		"docker-archive":        "docker-archive:" + write("d.tar", saved),
		"docker-archive name":   "docker-archive:" + filepath.Join(dir, "d.tar") + ":localhost/app:1",
		"docker-archive number": "docker-archive:" + filepath.Join(dir, "d.tar") + ":@0",
		"docker-archive zstd":   "docker-archive:" + write("d.tar.zst", imagetest.Zstd(t, saved)),
		"index":                 "oci:" + indexOf(t, m, nil),
		"nested index":          "oci:" + indexOf(t, m, nested(3)),
		"index of amd64/v2":     "oci:" + indexOf(t, m, variant("v2")),
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Source = source
			if _, err := Build(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
			if got := imagetest.Tool(t, "debugfs", "-R", "cat /srv/data", plain); !strings.HasSuffix(got, strings.Repeat(imagetest.Canary+"\n", 5000)) {
				t.Errorf("/srv/data is wrong")
			}
			imagetest.NoCanary(t, o.TempDir)
			imagetest.Empty(t, o.TempDir)
		})
	}
}

// flip changes one byte in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x40
	imagetest.WriteFile(t, path, b)
}

func truncate(t *testing.T, path string) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, st.Size()/2); err != nil {
		t.Fatal(err)
	}
}

// TestRefusedSources: each defect is refused with an error that names it, and
// leaves neither registration nor file.
func TestRefusedSources(t *testing.T) {
	t.Parallel()
	layerBlob := func(i int) func(*testing.T, *imagetest.Image, string) string {
		return func(_ *testing.T, m *imagetest.Image, dir string) string {
			return imagetest.BlobPath(dir, digest.FromBytes(m.Layers[i].Blob))
		}
	}
	manifestBlob := func(t *testing.T, m *imagetest.Image, dir string) string {
		return imagetest.BlobPath(dir, m.WriteLayout(t, dir))
	}
	configBlob := func(t *testing.T, m *imagetest.Image, dir string) string {
		return imagetest.BlobPath(dir, digest.FromBytes(imagetest.JSON(t, m.Config)))
	}
	damage := func(where func(*testing.T, *imagetest.Image, string) string, how func(*testing.T, string)) func(*testing.T, *imagetest.Image, string) {
		return func(t *testing.T, m *imagetest.Image, dir string) { how(t, where(t, m, dir)) }
	}
	for name, c := range map[string]struct {
		edit   func(*imagetest.Image)
		damage func(*testing.T, *imagetest.Image, string)
		policy string
		want   string
	}{
		"plain layer altered":      {damage: damage(layerBlob(0), flip), want: "layer 1"},
		"plain layer truncated":    {damage: damage(layerBlob(0), truncate), want: "layer 1"},
		"gzip layer altered":       {damage: damage(layerBlob(1), flip), want: "layer 2"},
		"gzip layer truncated":     {damage: damage(layerBlob(1), truncate), want: "layer 2"},
		"zstd layer altered":       {damage: damage(layerBlob(2), flip), want: "layer 3"},
		"zstd layer truncated":     {damage: damage(layerBlob(2), truncate), want: "layer 3"},
		"layer missing":            {damage: damage(layerBlob(2), func(t *testing.T, p string) { os.Remove(p) }), want: "layer 3"},
		"manifest altered":         {damage: damage(manifestBlob, flip), want: "manifest"},
		"configuration altered":    {damage: damage(configBlob, flip), want: "configuration"},
		"wrong diff id of plain":   {edit: func(m *imagetest.Image) { m.Config.RootFS.DiffIDs[0] = digest.FromString("x") }, want: "digest"},
		"wrong diff id of gzip":    {edit: func(m *imagetest.Image) { m.Config.RootFS.DiffIDs[1] = digest.FromString("x") }, want: "layer 2"},
		"bad diff id":              {edit: func(m *imagetest.Image) { m.Config.RootFS.DiffIDs[1] = "sha256:zz" }, want: "diff id"},
		"too few diff ids":         {edit: func(m *imagetest.Image) { m.Config.RootFS.DiffIDs = m.Config.RootFS.DiffIDs[:2] }, want: "diff ids"},
		"other architecture":       {edit: func(m *imagetest.Image) { m.Config.Architecture = "arm64" }, want: "linux/amd64"},
		"other system":             {edit: func(m *imagetest.Image) { m.Config.OS = "windows" }, want: "linux/amd64"},
		"nothing to run":           {edit: func(m *imagetest.Image) { m.Config.Config.Entrypoint, m.Config.Config.Cmd = nil, nil }, want: "nothing to run"},
		"stop signal":              {edit: func(m *imagetest.Image) { m.Config.Config.StopSignal = "SIGFOO" }, want: "SIGFOO"},
		"unknown user":             {edit: func(m *imagetest.Image) { m.Config.Config.User = "ghost" }, want: "ghost"},
		"unknown group":            {edit: func(m *imagetest.Image) { m.Config.Config.User = "1:ghosts" }, want: "ghosts"},
		"user out of range":        {edit: func(m *imagetest.Image) { m.Config.Config.User = "4294967295" }, want: "range"},
		"NUL in an argument":       {edit: func(m *imagetest.Image) { m.Config.Config.Cmd = []string{"a\x00b"} }, want: "NUL"},
		"empty command":            {edit: func(m *imagetest.Image) { m.Config.Config.Entrypoint = []string{""} }, want: "name is empty"},
		"long variable":            {edit: func(m *imagetest.Image) { m.Config.Config.Env = []string{"A=" + strings.Repeat("x", 128<<10)} }, want: "131071"},
		"long environment":         {edit: longEnvironment, want: "1048576"},
		"volume below a file":      {edit: func(m *imagetest.Image) { m.Config.Config.Volumes = map[string]struct{}{"/etc/new/x": {}} }, want: "VOLUME"},
		"encrypted layer":          {edit: func(m *imagetest.Image) { m.Layers[0].MediaType += "+encrypted" }, want: "encrypted"},
		"garbage in gzip":          {edit: func(m *imagetest.Image) { m.Layers[1].Blob = append([]byte{0x1f, 0x8b, 8}, "garbage"...) }, want: "layer 2"},
		"not a tar":                {edit: notTar, want: "layer 1"},
		"policy refuses":           {policy: `{"default":[{"type":"reject"}]}`, want: "policy"},
		"policy wants a signature": {policy: `{"default":[{"type":"sigstoreSigned","keyData":"` + unusedKey(t) + `"}]}`, want: "signature was required"},
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			dir := t.TempDir()
			m := imagetest.App(t)
			if c.edit != nil {
				c.edit(m)
			}
			m.WriteLayout(t, dir)
			if c.damage != nil {
				c.damage(t, m, dir)
			}
			if c.policy != "" {
				imagetest.WriteFile(t, o.System.SignaturePolicyPath, []byte(c.policy))
			}
			o.Source = "oci:" + dir
			_, err := Build(t.Context(), o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, expected %q in it", err, c.want)
			}
			nothingLeft(t, o, server)
		})
	}
}

// unusedKey is the public half of a key that has signed nothing, as
// policy.json wants it.
func unusedKey(t *testing.T) string {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func longEnvironment(m *imagetest.Image) {
	m.Config.Config.Env = slices.Repeat([]string{"A=" + strings.Repeat("x", 100<<10)}, 11)
}

func notTar(m *imagetest.Image) {
	b := bytes.Repeat([]byte("not a tar archive. "), 100)
	m.Layers[0].Blob, m.Config.RootFS.DiffIDs[0] = b, digest.FromBytes(b)
}

func nothingLeft(t *testing.T, o Options, server *fakeServer) {
	t.Helper()
	if server != nil && len(server.reqs) != 0 {
		t.Error("a failed build is registered")
	}
	_, dest, _ := strings.Cut(o.Destination, ":")
	dest, _, _ = strings.Cut(dest, ":")
	imagetest.Empty(t, filepath.Dir(dest))
	imagetest.Empty(t, o.TempDir)
}

// TestChangedBetweenPasses alters a plain layer after its headers were read:
// what goes into the disk would not be what the manifest says.
func TestChangedBetweenPasses(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	dir := t.TempDir()
	m := imagetest.App(t)
	m.WriteLayout(t, dir)
	o.Source = "oci:" + dir
	path := imagetest.BlobPath(dir, digest.FromBytes(m.Layers[0].Blob))
	done := false
	o.Progress = func(stage string, _, _ int64) {
		if strings.HasPrefix(stage, "encrypting") && !done {
			done = true
			b := bytes.Replace(m.Layers[0].Blob, []byte("canary-3f1c"), []byte("canary-3f1d"), 1)
			imagetest.WriteFile(t, path, b)
		}
	}
	_, err := Build(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "layer 1") {
		t.Fatalf("error %v, expected one about layer 1", err)
	}
	nothingLeft(t, o, server)
}

func TestMissingSource(t *testing.T) {
	t.Parallel()
	for source, want := range map[string]string{
		"oci:/nonexistent/layout":        "nonexistent",
		"docker-archive:/nonexistent":    "nonexistent",
		"oci-archive:/nonexistent:a":     "nonexistent",
		"dir:/nonexistent":               "nonexistent",
		"docker://Not A Name":            "Not A Name",
		"docker://127.0.0.1:1/nothing:1": "127.0.0.1:1",
	} {
		t.Run(source, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Source = source
			_, err := Build(registry.WithPatience(t.Context(), registry.Patience{Retries: -1}), o)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, expected %q in it", err, want)
			}
			nothingLeft(t, o, server)
		})
	}
}

func TestOptionsRefused(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(*Options){
		"no source":           func(o *Options) { o.Source = "" },
		"no TEE":              func(o *Options) { o.TEE = "" },
		"no CPU":              func(o *Options) { o.CPUs = 0 },
		"too many CPUs":       func(o *Options) { o.CPUs = 9 },
		"too little memory":   func(o *Options) { o.MemoryMiB = 128 },
		"bad workload id":     func(o *Options) { o.WorkloadID = "../x" },
		"odd size":            func(o *Options) { o.SizeBytes = 5000 },
		"unknown fs":          func(o *Options) { o.Filesystem = "erofs" },
		"encrypted logs":      func(o *Options) { o.Policy.Logs = "encrypted" },
		"no server":           func(o *Options) { o.Servers.URLs = nil },
		"plain http":          func(o *Options) { o.Servers.URLs = []string{"http://x"} },
		"no pin":              func(o *Options) { o.Servers.PinnedKeys = nil },
		"nowhere for the key": func(o *Options) { o.Registrar = nil },
		"bad environment":     func(o *Options) { o.Policy.EnvAllow = []string{"A-B"} },
		"bad rule":            func(o *Options) { o.Policy.EnvAllow = []string{"A=("} },
		"no agent":            func(o *Options) { o.Agent = nil },
		"TEE and firmware":    func(o *Options) { o.TEE = kbs.SNP },
		"TDX":                 func(o *Options) { o.TEE = kbs.TDX },
		"too small":           func(o *Options) { o.SizeBytes = 8192 },
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			edit(&o)
			if _, err := Build(t.Context(), o); err == nil {
				t.Fatal("accepted")
			}
			nothingLeft(t, o, server)
		})
	}
}
