package workload

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/referrers"
)

// signer is a signing key, and the file of its public half.
type signer struct {
	key *referrers.SigningKey
	pub string
}

// owner and stranger are the same in all tests: a passphrase is slow to try, as
// it should be.
var owner, stranger = sync.OnceValues(newSigner), sync.OnceValues(newSigner)

func newSigner() (signer, error) {
	dir, err := os.MkdirTemp(shared, "signer-")
	if err != nil {
		return signer{}, err
	}
	private, public, err := imagetest.SigstoreKey(dir, "pass")
	if err != nil {
		return signer{}, err
	}
	k, err := referrers.LoadSigningKey(private, secret.New([]byte("pass")))
	return signer{k, public}, err
}

// signingKey is one of the two.
func signingKey(t testing.TB, of func() (signer, error)) (*referrers.SigningKey, string) {
	t.Helper()
	s, err := of()
	if err != nil {
		t.Fatal(err)
	}
	return s.key, s.pub
}

// referrerRegistry is one with or without the referrers API, and a policy to
// keep signatures in it.
func referrerRegistry(t testing.TB, sys *types.SystemContext, api bool) string {
	t.Helper()
	keepSignatures(t, sys)
	return new(imagetest.Liar).Registry(t, sys, api)
}

// keepSignatures makes registries keep signatures as attachments.
func keepSignatures(t testing.TB, sys *types.SystemContext) {
	t.Helper()
	sys.RegistriesDirPath = t.TempDir()
	imagetest.WriteFile(t, filepath.Join(sys.RegistriesDirPath, "default.yaml"), []byte("default-docker:\n  use-sigstore-attachments: true\n"))
}

// signedBuild builds into dest, signed and with everything attached.
func signedBuild(t testing.TB, dest func(*types.SystemContext) string) (Options, *Result, string) {
	t.Helper()
	o := testOptions(t, &fakeServer{})
	key, pub := signingKey(t, owner)
	o.Destination = dest(o.System)
	o.Sign, o.Attach, o.Version, o.PublishSource = key, []string{AttachRecord, AttachProvenance, AttachSBOM}, "1.2.3", true
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o, res, pub
}

func verifyOptions(o Options, pub string) VerifyOptions {
	return VerifyOptions{Image: o.Destination, KeyPath: pub, Firmware: []string{o.Firmware}, System: o.System,
		Require: []string{AttachRecord, AttachProvenance, AttachSBOM}}
}

func rules(v *ImageVerification) (pass, fail []string) {
	for _, c := range v.Checks {
		if c.Pass {
			pass = append(pass, c.Rule)
		} else {
			fail = append(fail, c.Rule)
		}
	}
	return pass, fail
}

func supplyDestinations(t testing.TB) map[string]func(*types.SystemContext) string {
	return map[string]func(*types.SystemContext) string{
		"referrers API": func(s *types.SystemContext) string { return "docker://" + referrerRegistry(t, s, true) + "/ns/app:1" },
		"fallback tag":  func(s *types.SystemContext) string { return "docker://" + referrerRegistry(t, s, false) + "/ns/app:1" },
		"layout":        func(*types.SystemContext) string { return "oci:" + t.TempDir() + "/layout:app" },
	}
}

func TestSupplyChain(t *testing.T) {
	t.Parallel()
	for name, dest := range supplyDestinations(t) {
		t.Run(name, func(t *testing.T) {
			o, res, pub := signedBuild(t, dest)
			v, err := VerifyImage(t.Context(), verifyOptions(o, pub))
			if err != nil {
				t.Fatal(err)
			}
			want := []string{"content", "record", "provenance", "sbom", "measurement"}
			if name != "layout" {
				want = append([]string{"signature"}, want...)
			}
			if pass, failed := rules(v); !v.Pass || !slices.Equal(pass, want) {
				t.Fatalf("passed %v, failed %v: %+v", pass, failed, v.Checks)
			}
			if v.Digest != res.Digest || v.Source != res.SourceDigest || v.WorkloadID != res.Registration.WorkloadID {
				t.Errorf("verification %+v of %+v", v, res)
			}
			if strings.HasPrefix(o.Destination, "docker://") {
				imagetest.Tool(t, "skopeo", "inspect", "--tls-verify=false", "--no-tags", o.Destination)
			} else {
				imagetest.Tool(t, "skopeo", "inspect", "--no-tags", o.Destination)
			}
			store, err := referrers.Open(o.System, o.Destination)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := referrers.Read(t.Context(), store, digest.Digest(res.Digest))
			if err != nil || len(docs) != 3 {
				t.Fatalf("%d documents, %v", len(docs), err)
			}
			key := o.Registrar.(*fakeServer).the(t).DiskKey
			for _, d := range docs {
				if bytes.Contains(d.Content, key) || bytes.Contains(d.Content, []byte(imagetest.Canary)) {
					t.Errorf("%s holds a secret", d.Type)
				}
			}
		})
	}
}

// TestVerifyImageRefuses changes one thing each; each must fail its own rule.
func TestVerifyImageRefuses(t *testing.T) {
	t.Parallel()
	_, otherPub := signingKey(t, stranger)
	base, _, pub := signedBuild(t, supplyDestinations(t)["referrers API"])
	for name, c := range map[string]struct {
		change func(t *testing.T, o *Options, v *VerifyOptions)
		rule   string
	}{
		"other key":      {func(_ *testing.T, _ *Options, v *VerifyOptions) { v.KeyPath = otherPub }, "signature"},
		"other firmware": {func(t *testing.T, _ *Options, v *VerifyOptions) { v.Firmware = []string{changedFirmware(t)} }, "measurement"},
		"no documents": {func(t *testing.T, o *Options, _ *VerifyOptions) {
			o.Attach = nil
			rebuild(t, o)
		}, "record"},
		"no SBOM": {func(t *testing.T, o *Options, _ *VerifyOptions) {
			o.Attach = []string{AttachRecord, AttachProvenance}
			rebuild(t, o)
		}, "sbom"},
		"not signed": {func(t *testing.T, o *Options, _ *VerifyOptions) {
			o.Sign = nil
			rebuild(t, o)
		}, "signature"},
		"unsigned provenance": {func(t *testing.T, o *Options, _ *VerifyOptions) {
			o.Sign = nil
			rebuild(t, o)
		}, "provenance"},
	} {
		t.Run(name, func(t *testing.T) {
			o, v := base, verifyOptions(base, pub)
			c.change(t, &o, &v)
			v.Image = o.Destination
			got, err := VerifyImage(t.Context(), v)
			if err != nil {
				t.Fatal(err)
			}
			if _, failed := rules(got); got.Pass || !slices.Contains(failed, c.rule) {
				t.Errorf("failed %v, expected %s: %+v", failed, c.rule, got.Checks)
			}
		})
	}
}

// TestBuildForSeveralFirmwares: what each measures is registered, the first is
// what the image says that it was built for, and only all together explain it.
func TestBuildForSeveralFirmwares(t *testing.T) {
	t.Parallel()
	server := &fakeServer{}
	o := testOptions(t, server)
	key, pub := signingKey(t, owner)
	o.Sign, o.Attach, o.MoreFirmware = key, []string{AttachRecord, AttachProvenance}, []string{changedFirmware(t)}
	o.Destination = supplyDestinations(t)["layout"](o.System)
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	got := server.the(t).Registration.ReferenceValues.Measurements
	if len(got) != 2 || got[0].LaunchDigest == got[1].LaunchDigest || got[0].Firmware == got[1].Firmware {
		t.Fatalf("registered %+v", got)
	}
	out := readOutput(t, o.System, o.Destination)
	if out.labels[krun.LabelFirmware] != got[0].Firmware {
		t.Errorf("label %s", out.labels[krun.LabelFirmware])
	}
	v := verifyOptions(o, pub)
	v.Require = o.Attach
	for _, c := range []struct {
		firmware []string
		pass     bool
	}{{append([]string{o.Firmware}, o.MoreFirmware...), true}, {[]string{o.Firmware}, false}} {
		v.Firmware = c.firmware
		if got, err := VerifyImage(t.Context(), v); err != nil || got.Pass != c.pass {
			t.Errorf("%d firmwares: %+v, %v", len(c.firmware), got, err)
		}
	}
	o = testOptions(t, &fakeServer{})
	o.MoreFirmware = []string{o.Firmware}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "is the same as") {
		t.Errorf("the same firmware twice: %v", err)
	}
}

func changedFirmware(t testing.TB) string {
	dir := testFirmware(t)
	imagetest.WriteFile(t, filepath.Join(dir, "vmlinuz"), bytes.Repeat([]byte("KERNEL"), 1000))
	return dir
}

// rebuild builds under another name of the same registry.
func rebuild(t *testing.T, o *Options) {
	t.Helper()
	o.Destination = strings.TrimSuffix(o.Destination, ":1") + ":2"
	o.Registrar = &fakeServer{}
	if _, err := Build(t.Context(), *o); err != nil {
		t.Fatal(err)
	}
}

// TestVerifyDocuments alters what is attached to an image in a layout.
func TestVerifyDocuments(t *testing.T) {
	t.Parallel()
	o, res, pub := signedBuild(t, supplyDestinations(t)["layout"])
	key, err := referrers.ReadPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := referrers.Open(o.System, o.Destination)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := referrers.Read(t.Context(), store, digest.Digest(res.Digest))
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]referrers.Document{}
	for _, d := range docs {
		good[d.Type] = d
	}
	statement, err := referrers.OpenEnvelope(good[referrers.TypeProvenance].Content, referrers.TypeProvenance, key)
	if err != nil {
		t.Fatal(err)
	}
	record := good[referrers.TypeRecord].Content
	edit := func(b []byte, from, to string) []byte {
		if !bytes.Contains(b, []byte(from)) {
			t.Fatalf("no %q in %s", from, b)
		}
		return bytes.ReplaceAll(b, []byte(from), []byte(to))
	}
	resign := func(b []byte) []byte {
		e, err := o.Sign.Sign(referrers.TypeProvenance, b)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	zeros := strings.Repeat("1", 96)
	launch := res.Registration.ReferenceValues.Measurements[0].LaunchDigest.String()
	var leaky kbs.Record
	if err := json.Unmarshal(record, &leaky); err != nil {
		t.Fatal(err)
	}
	leaky.DiskKey = []byte("key")
	for name, d := range map[string]referrers.Document{
		"record of other image":           {Type: referrers.TypeRecord, MediaType: "", Content: edit(record, res.Digest, "sha256:"+zeros[:64])},
		"record of other identity":        {Type: referrers.TypeRecord, MediaType: "", Content: edit(record, res.Registration.IdentityDigest.String(), zeros)},
		"record of other measurement":     {Type: referrers.TypeRecord, MediaType: "", Content: edit(record, launch, zeros)},
		"record with unknown member":      {Type: referrers.TypeRecord, MediaType: "", Content: edit(record, `{"identity"`, `{"x":1,"identity"`)},
		"record with key":                 {Type: referrers.TypeRecord, MediaType: "", Content: imagetest.JSON(t, leaky)},
		"record not JSON":                 {Type: referrers.TypeRecord, MediaType: "", Content: []byte("{")},
		"provenance bare":                 {Type: referrers.TypeProvenance, MediaType: "", Content: statement},
		"provenance altered":              {Type: referrers.TypeProvenance, MediaType: "", Content: edit(good[referrers.TypeProvenance].Content, `"sig":"M`, `"sig":"N`)},
		"provenance of other image":       {Type: referrers.TypeProvenance, MediaType: "", Content: resign(edit(statement, digest.Digest(res.Digest).Encoded(), zeros[:64]))},
		"provenance of other identity":    {Type: referrers.TypeProvenance, MediaType: "", Content: resign(edit(statement, res.Registration.IdentityDigest.String(), zeros))},
		"provenance of other measurement": {Type: referrers.TypeProvenance, MediaType: "", Content: resign(edit(statement, launch, zeros))},
		"provenance of other source":      {Type: referrers.TypeProvenance, MediaType: "", Content: resign(edit(statement, digest.Digest(res.SourceDigest).Encoded(), zeros[:64]))},
		"provenance of other type":        {Type: referrers.TypeProvenance, MediaType: "", Content: resign(edit(statement, provenanceType, "https://slsa.dev/provenance/v0.2"))},
		"SBOM of other version":           {Type: referrers.TypeSBOM, MediaType: "", Content: edit(good[referrers.TypeSBOM].Content, "SPDX-2.3", "SPDX-9")},
	} {
		v := &verification{VerifyOptions: verifyOptions(o, pub), out: &ImageVerification{Digest: res.Digest}, publicKey: key, in: in}
		judges := map[string]func([]byte) (string, error){referrers.TypeRecord: v.record, referrers.TypeProvenance: v.provenance, referrers.TypeSBOM: v.sbom}
		v.judge("doc", d.Type, []referrers.Document{d}, judges[d.Type])
		if pass, _ := rules(v.out); len(pass) > 0 {
			t.Errorf("%s: accepted: %+v", name, v.out.Checks)
		}
		v.out.Checks = nil
		v.judge("doc", d.Type, []referrers.Document{d, good[d.Type]}, judges[d.Type])
		if _, failed := rules(v.out); len(failed) > 0 {
			t.Errorf("%s: hides the good one: %+v", name, v.out.Checks)
		}
	}
}

func TestVerifyNothing(t *testing.T) {
	t.Parallel()
	o := testOptions(t, &fakeServer{})
	if _, err := VerifyImage(t.Context(), VerifyOptions{Image: o.Source, System: o.System}); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("verified against nothing: %v", err)
	}
	o.Sign, _ = signingKey(t, owner)
	o.Destination = "oci:" + t.TempDir()
	if _, err := Build(t.Context(), o); err == nil {
		t.Error("signed where no signature can be kept")
	}
}

// attachedSBOM builds from m and returns the package URLs in the SBOM, and
// what was warned of.
func attachedSBOM(t *testing.T, m *imagetest.Image, server *fakeServer) (o Options, purls []string, warned string) {
	t.Helper()
	o = testOptions(t, server)
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	o.Source, o.Destination, o.Attach, o.SizeBytes = "oci:"+dir, "oci:"+t.TempDir()+":app", []string{AttachSBOM}, 0
	o.Warn = func(s string) { warned += s + "\n" }
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	imagetest.Empty(t, o.TempDir)
	store, _ := referrers.Open(o.System, o.Destination)
	docs, err := referrers.Read(t.Context(), store, digest.Digest(res.Digest))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	return o, imagetest.PURLs(t, docs[0].Content), warned
}

func packageImage(t testing.TB, files ...imagetest.File) *imagetest.Image {
	layer := imagetest.Tar(t, files...)
	m := &imagetest.Image{Config: imgspec.Image{Config: imgspec.ImageConfig{Cmd: []string{"/x"}}, RootFS: imgspec.RootFS{Type: "layers"}}}
	m.Add(imgspec.MediaTypeImageLayerGzip, layer, imagetest.Gzip(t, layer))
	return m
}

// TestSBOMOfProgram lists this test's modules, from a layer large enough that
// a scratch file whose space is given back as it is read would show: it is read
// for the SBOM and once more for the disk.
func TestSBOMOfProgram(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	server := &fakeServer{}
	o, got, _ := attachedSBOM(t, packageImage(t, imagetest.File{Name: "app", Content: string(program), Mode: 0o755}), server)
	for _, want := range []string{"pkg:golang/stdlib@", "pkg:golang/github.com/ccrun/ccrun"} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, want) }) {
			t.Errorf("no %s in %v", want, got)
		}
	}
	plain := readOutput(t, o.System, o.Destination).decrypt(t, server.the(t).DiskKey)
	out := filepath.Join(t.TempDir(), "app")
	imagetest.Tool(t, "debugfs", "-R", "dump /app "+out, plain)
	if b, err := os.ReadFile(out); err != nil || !bytes.Equal(b, program) {
		t.Errorf("the program on the disk is another one (%v)", err)
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	layer := imagetest.Tar(t, imagetest.File{Name: "bin/su", Content: "x", Mode: 0o4755}, imagetest.File{Name: "etc/open", Content: "x", Mode: 0o666},
		imagetest.File{Name: "tmp/", Kind: '5', Mode: 0o1777}, imagetest.File{Name: "drop/", Kind: '5', Mode: 0o777})
	m := &imagetest.Image{Config: imgspec.Image{Config: imgspec.ImageConfig{Cmd: []string{"/x"}, Env: []string{
		"DB_PASSWORD=hunter2-never-shown", "PASSWORD_FILE=/run/pw", "URL=https://u:hunter2-never-shown@h/", "PATH=/bin"}}, RootFS: imgspec.RootFS{Type: "layers"}}}
	m.Add(imgspec.MediaTypeImageLayer, layer, layer)
	dir := t.TempDir()
	m.WriteLayout(t, dir)
	o := testOptions(t, &fakeServer{})
	var warned []string
	o.Source, o.Lint, o.Warn = "oci:"+dir, LintWarn, func(s string) { warned = append(warned, s) }
	if _, err := Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	all := strings.Join(warned, "\n")
	for _, want := range []string{"DB_PASSWORD", "variable URL", "runs as root", "/bin/su", "/etc/open", "/drop"} {
		if !strings.Contains(all, want) {
			t.Errorf("lint lacks %s:\n%s", want, all)
		}
	}
	for _, not := range []string{"hunter2", "PASSWORD_FILE", "/tmp", "latest"} {
		if strings.Contains(all, not) {
			t.Errorf("lint has %s:\n%s", not, all)
		}
	}
	o = testOptions(t, &fakeServer{})
	o.Source, o.Lint = "oci:"+dir, LintError
	if _, err := Build(t.Context(), o); err == nil {
		t.Error("lint=error builds")
	}
	for name, want := range map[string]string{"docker://h:5000/a": "latest", "docker://h/a:1": "1", "docker://h/a@sha256:ab": "", "oci:d": ""} {
		if got := tagOf(name); got != want {
			t.Errorf("tag of %s is %q, expected %q", name, got, want)
		}
	}
}

func TestAllowedBase(t *testing.T) {
	t.Parallel()
	base, other := imagetest.App(t), imagetest.App(t)
	base.Layers, base.Config.RootFS.DiffIDs = base.Layers[:1], base.Config.RootFS.DiffIDs[:1]
	other.Layers, other.Config.RootFS.DiffIDs = other.Layers[1:2], other.Config.RootFS.DiffIDs[1:2]
	baseDir, otherDir := t.TempDir(), t.TempDir()
	base.WriteLayout(t, baseDir)
	other.WriteLayout(t, otherDir)
	o := testOptions(t, &fakeServer{})
	o.AllowedBases = []string{"oci:" + otherDir}
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), "none of the 1 allowed bases") {
		t.Errorf("other base: %v", err)
	}
	o.AllowedBases = append(o.AllowedBases, "oci:"+baseDir)
	if _, err := Build(t.Context(), o); err != nil {
		t.Error(err)
	}
}
