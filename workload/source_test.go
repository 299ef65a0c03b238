package workload

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// archiveOf packs the files below dir.
func archiveOf(t testing.TB, dir string) []byte {
	t.Helper()
	var files []file
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		files = append(files, file{name: rel, content: string(b)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tarOf(t, files...)
}

// dockerSave writes m as docker save does, with one layer compressed, which
// tools accept, and one twice, by way of a link.
func (m *testImage) dockerSave(t testing.TB) []byte {
	t.Helper()
	config := mustJSON(t, m.config)
	item := struct {
		Config           string
		RepoTags, Layers []string
	}{Config: digest.FromBytes(config).Encoded() + ".json", RepoTags: []string{"localhost/app:1"}}
	files := []file{{name: item.Config, content: string(config)}}
	for i, l := range m.layers {
		b := l.plain
		name := string(rune('a'+i)) + "/layer.tar"
		if i == 1 {
			b = gzipped(t, b)
		}
		files = append(files, file{name: name, content: string(b)})
		if i == 0 {
			files = append(files, file{name: "z/layer.tar", kind: tar.TypeSymlink, link: "../" + name})
			name = "z/layer.tar"
		}
		item.Layers = append(item.Layers, name)
	}
	return tarOf(t, append(files, file{name: "manifest.json", content: string(mustJSON(t, []any{item}))})...)
}

// TestSources builds from every kind of local source and expects the same
// content in the disk.
func TestSources(t *testing.T) {
	layout := t.TempDir()
	m := appImage(t)
	m.writeLayout(t, layout)
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		writeTestFile(t, p, b)
		return p
	}
	saved := m.dockerSave(t)
	for name, source := range map[string]string{
		"oci":                   "oci:" + layout,
		"oci-archive":           "oci-archive:" + write("a.tar", archiveOf(t, layout)),
		"oci-archive gzip":      "oci-archive:" + write("a.tgz", gzipped(t, archiveOf(t, layout))),
		"docker-archive":        "docker-archive:" + write("d.tar", saved),
		"docker-archive name":   "docker-archive:" + filepath.Join(dir, "d.tar") + ":localhost/app:1",
		"docker-archive number": "docker-archive:" + filepath.Join(dir, "d.tar") + ":@0",
		"docker-archive zstd":   "docker-archive:" + write("d.tar.zst", zstded(t, saved)),
		"index":                 "oci:" + indexOf(t, m),
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			o.Source = source
			if _, err := Build(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
			if got := tool(t, "debugfs", "-R", "cat /srv/data", plain); !strings.HasSuffix(got, strings.Repeat(canary+"\n", 5000)) {
				t.Errorf("/srv/data is wrong")
			}
			noCanary(t, o.TempDir)
			empty(t, o.TempDir)
		})
	}
}

// indexOf is a layout whose index leads to an index of two platforms, of
// which the other one comes first.
func indexOf(t *testing.T, m *testImage) string {
	t.Helper()
	dir := t.TempDir()
	d := m.writeLayout(t, dir)
	arm := appImage(t)
	arm.config.Architecture = "arm64"
	a := arm.writeLayout(t, dir)
	list := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex}
	for _, p := range []struct {
		d    digest.Digest
		arch string
	}{{a, "arm64"}, {d, "amd64"}} {
		st, err := os.Stat(blobPath(dir, p.d))
		if err != nil {
			t.Fatal(err)
		}
		list.Manifests = append(list.Manifests, imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, Digest: p.d, Size: st.Size(),
			Platform: &imgspec.Platform{OS: "linux", Architecture: p.arch}})
	}
	b := mustJSON(t, list)
	writeTestFile(t, blobPath(dir, digest.FromBytes(b)), b)
	top := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []imgspec.Descriptor{
		{MediaType: imgspec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: int64(len(b))}}}
	writeTestFile(t, filepath.Join(dir, "index.json"), mustJSON(t, top))
	return dir
}

// flip changes one byte in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x40
	writeTestFile(t, path, b)
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
	layerBlob := func(i int) func(*testing.T, *testImage, string) string {
		return func(_ *testing.T, m *testImage, dir string) string {
			return blobPath(dir, digest.FromBytes(m.layers[i].blob))
		}
	}
	manifestBlob := func(t *testing.T, m *testImage, dir string) string {
		return blobPath(dir, m.writeLayout(t, dir))
	}
	configBlob := func(t *testing.T, m *testImage, dir string) string {
		return blobPath(dir, digest.FromBytes(mustJSON(t, m.config)))
	}
	damage := func(where func(*testing.T, *testImage, string) string, how func(*testing.T, string)) func(*testing.T, *testImage, string) {
		return func(t *testing.T, m *testImage, dir string) { how(t, where(t, m, dir)) }
	}
	for name, c := range map[string]struct {
		edit   func(*testImage)
		damage func(*testing.T, *testImage, string)
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
		"wrong diff id of plain":   {edit: func(m *testImage) { m.config.RootFS.DiffIDs[0] = digest.FromString("x") }, want: "digest"},
		"wrong diff id of gzip":    {edit: func(m *testImage) { m.config.RootFS.DiffIDs[1] = digest.FromString("x") }, want: "layer 2"},
		"bad diff id":              {edit: func(m *testImage) { m.config.RootFS.DiffIDs[1] = "sha256:zz" }, want: "diff id"},
		"too few diff ids":         {edit: func(m *testImage) { m.config.RootFS.DiffIDs = m.config.RootFS.DiffIDs[:2] }, want: "diff ids"},
		"other architecture":       {edit: func(m *testImage) { m.config.Architecture = "arm64" }, want: "linux/amd64"},
		"other system":             {edit: func(m *testImage) { m.config.OS = "windows" }, want: "linux/amd64"},
		"nothing to run":           {edit: func(m *testImage) { m.config.Config.Entrypoint, m.config.Config.Cmd = nil, nil }, want: "nothing to run"},
		"broken environment":       {edit: func(m *testImage) { m.config.Config.Env = []string{"novalue"} }, want: "NAME=VALUE"},
		"relative directory":       {edit: func(m *testImage) { m.config.Config.WorkingDir = "srv" }, want: "not absolute"},
		"bad port":                 {edit: func(m *testImage) { m.config.Config.ExposedPorts = map[string]struct{}{"0/tcp": {}} }, want: "port"},
		"encrypted layer":          {edit: func(m *testImage) { m.layers[0].mediaType += "+encrypted" }, want: "encrypted"},
		"garbage in gzip":          {edit: func(m *testImage) { m.layers[1].blob = append([]byte{0x1f, 0x8b, 8}, "garbage"...) }, want: "layer 2"},
		"not a tar":                {edit: notTar, want: "layer 1"},
		"policy refuses":           {policy: `{"default":[{"type":"reject"}]}`, want: "policy"},
		"policy wants a signature": {policy: `{"default":[{"type":"sigstoreSigned","keyData":"` + unusedKey(t) + `"}]}`, want: "signature was required"},
	} {
		t.Run(name, func(t *testing.T) {
			server := &fakeServer{}
			o := testOptions(t, server)
			dir := t.TempDir()
			m := appImage(t)
			if c.edit != nil {
				c.edit(m)
			}
			m.writeLayout(t, dir)
			if c.damage != nil {
				c.damage(t, m, dir)
			}
			if c.policy != "" {
				writeTestFile(t, o.System.SignaturePolicyPath, []byte(c.policy))
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

func notTar(m *testImage) {
	b := bytes.Repeat([]byte("not a tar archive. "), 100)
	m.layers[0].blob, m.config.RootFS.DiffIDs[0] = b, digest.FromBytes(b)
}

func nothingLeft(t *testing.T, o Options, server *fakeServer) {
	t.Helper()
	if server != nil && len(server.reqs) != 0 {
		t.Error("a failed build is registered")
	}
	_, dest, _ := strings.Cut(o.Destination, ":")
	dest, _, _ = strings.Cut(dest, ":")
	empty(t, filepath.Dir(dest))
	empty(t, o.TempDir)
}

// TestChangedBetweenPasses alters a plain layer after its headers were read:
// what goes into the disk would not be what the manifest says.
func TestChangedBetweenPasses(t *testing.T) {
	server := &fakeServer{}
	o := testOptions(t, server)
	dir := t.TempDir()
	m := appImage(t)
	m.writeLayout(t, dir)
	o.Source = "oci:" + dir
	path := blobPath(dir, digest.FromBytes(m.layers[0].blob))
	done := false
	o.Progress = func(stage string, _, _ int64) {
		if strings.HasPrefix(stage, "encrypting") && !done {
			done = true
			b := bytes.Replace(m.layers[0].blob, []byte("canary-3f1c"), []byte("canary-3f1d"), 1)
			writeTestFile(t, path, b)
		}
	}
	_, err := Build(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "layer 1") {
		t.Fatalf("error %v, expected one about layer 1", err)
	}
	nothingLeft(t, o, server)
}

func TestMissingSource(t *testing.T) {
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
			_, err := Build(WithPatience(t.Context(), Patience{Retries: -1}), o)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Fatalf("error %v, expected %q in it", err, want)
			}
			nothingLeft(t, o, server)
		})
	}
}

func TestArchiveChoosesImage(t *testing.T) {
	for _, c := range []struct {
		image string
		ok    bool
	}{{"", false}, {"@0", true}, {"@2", false}, {"@-1", false}, {"localhost/a:1", true}, {"localhost/b", true}, {"localhost/c:1", false}} {
		items := []dockerItem{{RepoTags: []string{"localhost/a:1"}}, {RepoTags: []string{"localhost/b:latest"}}}
		if _, err := chooseItem(items, c.image); (err == nil) != c.ok {
			t.Errorf("%q: error %v", c.image, err)
		}
	}
}

func TestOptionsRefused(t *testing.T) {
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
