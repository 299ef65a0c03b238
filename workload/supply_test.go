package workload

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/imagetest"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// signingKey makes a key pair and returns it, and the file of its public half.
func signingKey(t testing.TB) (*SigningKey, string) {
	t.Helper()
	private, public := imagetest.SigstoreKey(t, "pass")
	k, err := LoadSigningKey(private, secret.New([]byte("pass")))
	if err != nil {
		t.Fatal(err)
	}
	return k, public
}

func TestLoadSigningKey(t *testing.T) {
	private, public := imagetest.SigstoreKey(t, "pass")
	if _, err := LoadSigningKey(private, secret.New([]byte("pass"))); err != nil {
		t.Error(err)
	}
	if _, err := LoadSigningKey(private, secret.New([]byte("wrong"))); err == nil {
		t.Error("key opens with a wrong passphrase")
	}
	if _, err := LoadSigningKey(public, secret.New([]byte("pass"))); err == nil {
		t.Error("public key taken for a private one")
	}
	if _, err := readPublicKey(private); err == nil {
		t.Error("private key taken for a public one")
	}
}

// referrerRegistry is one with or without the referrers API, and a policy to
// keep signatures in it.
func referrerRegistry(t testing.TB, sys *types.SystemContext, api bool) string {
	t.Helper()
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(api)))
	t.Cleanup(s.Close)
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	dir := t.TempDir()
	imagetest.WriteFile(t, filepath.Join(dir, "default.yaml"), []byte("default-docker:\n  use-sigstore-attachments: true\n"))
	sys.RegistriesDirPath = dir
	return strings.TrimPrefix(s.URL, "http://")
}

// signedBuild builds into dest, signed and with everything attached.
func signedBuild(t testing.TB, dest func(*types.SystemContext) string) (Options, *Result, string) {
	t.Helper()
	o := testOptions(t, &fakeServer{})
	key, pub := signingKey(t)
	o.Destination = dest(o.System)
	o.Sign, o.Attach, o.Version = key, []string{AttachRecord, AttachProvenance, AttachSBOM}, "1.2.3"
	res, err := Build(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return o, res, pub
}

func verifyOptions(o Options, pub string) VerifyOptions {
	return VerifyOptions{Image: o.Destination, KeyPath: pub, Firmware: o.Firmware, System: o.System,
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
			store, err := openReferrers(o.System, o.Destination)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := referrers(t.Context(), store, digest.Digest(res.Digest))
			if err != nil || len(docs) != 3 {
				t.Fatalf("%d documents, %v", len(docs), err)
			}
			key := o.Registrar.(*fakeServer).the(t).DiskKey
			for _, d := range docs {
				if bytes.Contains(d.content, key) || bytes.Contains(d.content, []byte(imagetest.Canary)) {
					t.Errorf("%s holds a secret", d.kind)
				}
			}
		})
	}
}

// TestVerifyImageRefuses changes one thing each; each must fail its own rule.
func TestVerifyImageRefuses(t *testing.T) {
	_, otherPub := signingKey(t)
	base, _, pub := signedBuild(t, supplyDestinations(t)["referrers API"])
	for name, c := range map[string]struct {
		change func(t *testing.T, o *Options, v *VerifyOptions)
		rule   string
	}{
		"other key":      {func(_ *testing.T, _ *Options, v *VerifyOptions) { v.KeyPath = otherPub }, "signature"},
		"other firmware": {func(t *testing.T, _ *Options, v *VerifyOptions) { v.Firmware = changedFirmware(t) }, "measurement"},
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
	o, res, pub := signedBuild(t, supplyDestinations(t)["layout"])
	key, err := readPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	in, err := Inspect(t.Context(), o.System, o.Destination, nil)
	if err != nil {
		t.Fatal(err)
	}
	store, err := openReferrers(o.System, o.Destination)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := referrers(t.Context(), store, digest.Digest(res.Digest))
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]artifact{}
	for _, d := range docs {
		good[d.kind] = d
	}
	statement, err := openEnvelope(good[TypeProvenance].content, TypeProvenance, key)
	if err != nil {
		t.Fatal(err)
	}
	record := good[TypeRecord].content
	edit := func(b []byte, from, to string) []byte {
		if !bytes.Contains(b, []byte(from)) {
			t.Fatalf("no %q in %s", from, b)
		}
		return bytes.ReplaceAll(b, []byte(from), []byte(to))
	}
	resign := func(b []byte) []byte {
		e, err := o.Sign.sign(TypeProvenance, b)
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
	for name, d := range map[string]artifact{
		"record of other image":           {TypeRecord, "", edit(record, res.Digest, "sha256:"+zeros[:64])},
		"record of other identity":        {TypeRecord, "", edit(record, res.Registration.IdentityDigest.String(), zeros)},
		"record of other measurement":     {TypeRecord, "", edit(record, launch, zeros)},
		"record with unknown member":      {TypeRecord, "", edit(record, `{"identity"`, `{"x":1,"identity"`)},
		"record with key":                 {TypeRecord, "", imagetest.JSON(t, leaky)},
		"record not JSON":                 {TypeRecord, "", []byte("{")},
		"provenance bare":                 {TypeProvenance, "", statement},
		"provenance altered":              {TypeProvenance, "", edit(good[TypeProvenance].content, `"sig":"M`, `"sig":"N`)},
		"provenance of other image":       {TypeProvenance, "", resign(edit(statement, digest.Digest(res.Digest).Encoded(), zeros[:64]))},
		"provenance of other identity":    {TypeProvenance, "", resign(edit(statement, res.Registration.IdentityDigest.String(), zeros))},
		"provenance of other measurement": {TypeProvenance, "", resign(edit(statement, launch, zeros))},
		"provenance of other source":      {TypeProvenance, "", resign(edit(statement, digest.Digest(res.SourceDigest).Encoded(), zeros[:64]))},
		"provenance of other type":        {TypeProvenance, "", resign(edit(statement, provenanceType, "https://slsa.dev/provenance/v0.2"))},
		"SBOM of other version":           {TypeSBOM, "", edit(good[TypeSBOM].content, "SPDX-2.3", "SPDX-9")},
	} {
		v := &verification{VerifyOptions: verifyOptions(o, pub), out: &ImageVerification{Digest: res.Digest}, key: key, in: in}
		judges := map[string]func([]byte) (string, error){TypeRecord: v.record, TypeProvenance: v.provenance, TypeSBOM: v.sbom}
		v.judge("doc", d.kind, []artifact{d}, judges[d.kind])
		if pass, _ := rules(v.out); len(pass) > 0 {
			t.Errorf("%s: accepted: %+v", name, v.out.Checks)
		}
		v.out.Checks = nil
		v.judge("doc", d.kind, []artifact{d, good[d.kind]}, judges[d.kind])
		if _, failed := rules(v.out); len(failed) > 0 {
			t.Errorf("%s: hides the good one: %+v", name, v.out.Checks)
		}
	}
}

// TestReferrersOfOthers: a list that names somebody else's documents.
func TestReferrersOfOthers(t *testing.T) {
	dir := t.TempDir()
	m := imagetest.App(t)
	image := m.WriteLayout(t, dir)
	store := &layoutReferrers{dir}
	about := func(d digest.Digest) imgspec.Descriptor {
		return imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, Digest: d, Size: 5}
	}
	now := time.Unix(1_700_000_000, 0)
	for _, kind := range []string{TypeRecord, TypeProvenance, TypeSBOM} {
		if err := attachTo(t.Context(), store, about(image), now, artifact{kind, kind, []byte(`"` + kind + `"`)}); err != nil {
			t.Fatal(err)
		}
	}
	a := artifact{TypeRecord, TypeRecord, []byte("{}")}
	other, err := a.manifest(about(digest.FromString("other")), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.put(t.Context(), other, &a); err != nil {
		t.Fatal(err)
	}
	docs, err := referrers(t.Context(), store, image)
	if err != nil || len(docs) != 3 {
		t.Errorf("%d documents, %v", len(docs), err)
	}
	for name, b := range map[string][]byte{"manifest": other, "configuration": []byte("{}"), "document": []byte(`"` + TypeSBOM + `"`)} {
		path := imagetest.BlobPath(dir, digest.FromBytes(b))
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		imagetest.WriteFile(t, path, append(slices.Clone(b), ' '))
		if _, err := referrers(t.Context(), store, image); err == nil {
			t.Errorf("altered %s of a referrer read", name)
		}
		imagetest.WriteFile(t, path, b)
	}
}

func TestVerifyNothing(t *testing.T) {
	o := testOptions(t, &fakeServer{})
	if _, err := VerifyImage(t.Context(), VerifyOptions{Image: o.Source, System: o.System}); err == nil || !strings.Contains(err.Error(), "no key") {
		t.Errorf("verified against nothing: %v", err)
	}
	o.Sign, _ = signingKey(t)
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
	store, _ := openReferrers(o.System, o.Destination)
	docs, err := referrers(t.Context(), store, digest.Digest(res.Digest))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	return o, purlsOf(t, docs[0].content), warned
}

// purlsOf are the package URLs in an SBOM.
func purlsOf(t *testing.T, b []byte) (purls []string) {
	t.Helper()
	var s struct {
		Packages []struct {
			ExternalRefs []struct{ ReferenceLocator string }
		}
	}
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Packages[1:] {
		purls = append(purls, p.ExternalRefs[0].ReferenceLocator)
	}
	return purls
}

func packageImage(t testing.TB, files ...imagetest.File) *imagetest.Image {
	layer := imagetest.Tar(t, files...)
	m := &imagetest.Image{Config: imgspec.Image{Config: imgspec.ImageConfig{Cmd: []string{"/x"}}, RootFS: imgspec.RootFS{Type: "layers"}}}
	m.Add(imgspec.MediaTypeImageLayerGzip, layer, imagetest.Gzip(t, layer))
	return m
}

func TestSBOM(t *testing.T) {
	db, err := os.ReadFile("rpmdb/testdata/rpmdb.sqlite.gz")
	if err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(db))
	if err != nil {
		t.Fatal(err)
	}
	if db, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	b, warnings, err := listFiles(t,
		imagetest.File{Name: "etc/os-release", Content: "NAME=\"Debian GNU/Linux\"\nID=debian\n"},
		imagetest.File{Name: "var/lib/dpkg/status", Content: "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\nArchitecture: amd64\nDescription: long\n more: of it\n\n" +
			"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: libc6\nStatus: install ok installed\nVersion: 2:2.36+x\nArchitecture: amd64"},
		imagetest.File{Name: "var/lib/dpkg/status.d/tz", Content: "Package: tzdata\nVersion: 2025\n"},
		imagetest.File{Name: "lib/apk/db/installed", Content: "C:Q1x\nP:musl\nV:1.2.5-r0\nA:x86_64\n\nP:zlib\nV:1.3\n"},
		imagetest.File{Name: "usr/lib/sysimage/rpm/rpmdb.sqlite", Content: string(db)},
		imagetest.File{Name: "usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA", Content: "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\n\nName: not this\nMetadata-Version: 1\n"},
		imagetest.File{Name: "opt/x.egg-info/PKG-INFO", Content: "Metadata-Version: 1.1\nName: old\nVersion: 2\n"},
		imagetest.File{Name: "app/node_modules/left-pad/package.json", Content: `{"name":"left-pad","version":"1.3.0","dependencies":{}}`},
		imagetest.File{Name: "app/node_modules/@babel/core/package.json", Content: `{"name":"@babel/core","version":"7.0.0"}`},
		imagetest.File{Name: "app/node_modules/left-pad/test/package.json", Content: `{"name":"a-test-fixture","version":"1"}`},
		imagetest.File{Name: "app/node_modules/broken/package.json", Content: `{"name":`},
		imagetest.File{Name: "bin/script", Content: strings.Repeat("# no program\n", 10_000), Mode: 0o755},
		imagetest.File{Name: "bin/elf", Content: "\x7fELF\x02\x01\x01" + strings.Repeat("\xff", 100_000), Mode: 0o755},
	)
	if err != nil {
		t.Fatal(err)
	}
	got, warned := purlsOf(t, b), strings.Join(warnings, "\n")
	want := []string{"pkg:apk/debian/musl@1.2.5-r0?arch=x86_64", "pkg:apk/debian/zlib@1.3", "pkg:deb/debian/bash@5.2-1?arch=amd64",
		"pkg:deb/debian/libc6@2:2.36+x?arch=amd64", "pkg:deb/debian/tzdata@2025", "pkg:npm/%40babel/core@7.0.0", "pkg:npm/left-pad@1.3.0",
		"pkg:pypi/foo-bar@1.0", "pkg:pypi/old@2",
		"pkg:rpm/debian/large@5-6~rc1?arch=x86_64", "pkg:rpm/debian/tiny@1.2-3?arch=noarch&epoch=4"}
	if !slices.Equal(got, want) {
		t.Errorf("packages %v, expected %v", got, want)
	}
	if !strings.Contains(warned, "lacks what 1 unreadable") {
		t.Errorf("warned %q", warned)
	}
}

// TestSBOMOfProgram lists this test's modules, from a layer large enough that
// a scratch file whose space is given back as it is read would show: it is read
// for the SBOM and once more for the disk.
func TestSBOMOfProgram(t *testing.T) {
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

func TestBrokenPackageLists(t *testing.T) {
	for name, f := range map[string]imagetest.File{
		"rpm": {Name: "var/lib/rpm/Packages", Content: strings.Repeat("x", 100)},
	} {
		if _, _, err := listFiles(t, f); err == nil || !strings.Contains(err.Error(), "database") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tarLayer is a layer in memory.
type tarLayer []byte

func (l tarLayer) Open(context.Context) (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l)), nil
}

// listFiles lists the packages of an image of one layer.
func listFiles(t *testing.T, files ...imagetest.File) ([]byte, []string, error) {
	t.Helper()
	layer := tarLayer(imagetest.Tar(t, files...))
	index, err := rootfs.Scan(t.Context(), bytes.NewReader(layer), rootfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := rootfs.MergeScanned([]rootfs.Layer{layer}, []*rootfs.Index{index}, rootfs.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	defer imagetest.Empty(t, dir)
	return listPackages(t.Context(), tree, dir, digest.FromString("source"), testTime())
}

func testTime() time.Time { return time.Unix(1_700_000_000, 0) }

func FuzzParagraphs(f *testing.F) {
	f.Add([]byte("Package: a\nVersion: 1\n\nP:b\nV:2"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, parse := range []func(io.Reader) ([]softwarePackage, error){parseDpkg, parseAPK, parsePython, parseNPM} {
			list, err := parse(bytes.NewReader(b))
			if err != nil {
				continue
			}
			if out, err := spdx(list, "d", digest.FromString("x"), testTime()); err != nil || !json.Valid(out) {
				t.Fatalf("%v from %q", err, b)
			}
		}
	})
}

func TestLint(t *testing.T) {
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
