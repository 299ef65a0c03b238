package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// corpusImage is an image of realistic size and kind. Its entrypoint is
// tests/corpus/probe, which prints what a program can see and then has the
// image's own program run.
type corpusImage struct {
	name    string
	layers  []string // of tests/corpus/build.sh, below the probe's own
	tree    string   // directories whose files are compared, by commas
	ask     []string // the probe's flags for a server; none: a job that ends by itself
	says    string   // what it logs after it has answered, if anything
	program []string
	config  map[string]any
	differs *regexp.Regexp // what its output says that is never twice the same
}

// TestCorpus runs each image of the corpus under plain Podman and as a
// workload image, and compares what a program, and who runs it, can observe.
// The differences are those of docs/podman-differences.md, no fewer and no
// more. Each runs once, on btrfs and erofs in turn; CCRUN_LONG=soak runs each on
// both. CCRUN_CORPUS=NAME,NAME runs those alone. Under another suite's Podman
// there are two; the two slowest, and all of them there, are for a soak.
func TestCorpus(t *testing.T) {
	images := chosenImages(os.Getenv("CCRUN_INSIDE") != "")
	layers := corpusLayers(t, images)
	w := inRig(t)
	if w == nil {
		return
	}
	seen := differences{}
	for i, c := range corpus() {
		if !slices.ContainsFunc(images, func(x corpusImage) bool { return x.name == c.name }) {
			continue
		}
		for _, fs := range filesystemsOf(i) {
			t.Run(c.name+"/"+fs, func(t *testing.T) { seen.add(c.name+"/"+fs, w.compare(t, c, fs, layers)) })
		}
	}
	for _, complaint := range seen.judge(under(w.podmanMajor(), documentedDifferences(t))) {
		t.Error(complaint)
	}
	t.Logf("soak: %d images, %d runs", len(images), len(seen))
}

// chosenImages is which run, here or inside another suite's root.
func chosenImages(inside bool) []corpusImage {
	only := os.Getenv("CCRUN_CORPUS")
	if only == "" && !soaking() {
		only = "shell,scratch,python,changes,nginx,redis,java,big"
		if inside {
			only = "shell,scratch"
		}
	}
	return slices.DeleteFunc(corpus(), func(c corpusImage) bool { return only != "" && !slices.Contains(strings.Split(only, ","), c.name) })
}

func (w *rigWorld) podmanMajor() string {
	w.t.Helper()
	major, _, _ := strings.Cut(strings.TrimPrefix(w.must("podman", "--version"), "podman version "), ".")
	return major
}

func filesystemsOf(i int) []string {
	all := []string{"btrfs", "erofs"}
	if soaking() {
		return all
	}
	return all[i%2:][:1]
}

// corpusLayers makes the layers, once, and returns their directory.
func corpusLayers(t *testing.T, images []corpusImage) string {
	t.Helper()
	endToEnd(t)
	cache := filepath.Dir(filepath.Dir(os.Getenv("CCRUN_RIG")))
	if os.Getenv("CCRUN_RIG_ENTERED") == "1" || os.Getenv("CCRUN_INSIDE") != "" { // made before, where Go is
		return filepath.Join(cache, "corpus")
	}
	args := []string{cache, "probe"}
	for _, c := range images {
		args = append(args, c.layers...)
	}
	if out, err := exec.Command("corpus/build.sh", args...).CombinedOutput(); err != nil {
		t.Fatalf("making the corpus: %v\n%s", err, out)
	}
	return filepath.Join(cache, "corpus")
}

// layout makes an OCI layout of the image, its layers by reference.
func (c corpusImage) layout(t *testing.T, dir, layers string) string {
	t.Helper()
	entrypoint := append(append([]string{"/.probe", "-tree", c.tree}, c.ask...), "--")
	config := map[string]any{"Entrypoint": entrypoint, "Cmd": c.program}
	for k, v := range c.config {
		config[k] = v
	}
	var digests []string
	var descriptors []map[string]any
	for _, name := range append(slices.Clone(c.layers), "probe") {
		sum, err := os.ReadFile(filepath.Join(layers, name+".sha256"))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(layers, name+".tar")
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		digest := strings.TrimSpace(string(sum))
		blob := filepath.Join(dir, "blobs/sha256", digest)
		if err := os.MkdirAll(filepath.Dir(blob), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, blob); err != nil {
			t.Fatal(err)
		}
		digests = append(digests, "sha256:"+digest)
		descriptors = append(descriptors, map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + digest, "size": info.Size()})
	}
	writeLayout(t, dir, config, digests, descriptors)
	return "oci:" + dir
}

// compare returns how the image as a workload image differs from itself.
func (w *rigWorld) compare(t *testing.T, c corpusImage, fs string, layers string) []difference {
	defer func(outer testing.TB) { w.t = outer }(w.t)
	w.t = t
	dir := filepath.Join(w.dir, "corpus", c.name+"-"+fs)
	source := c.layout(t, dir, layers)
	start := time.Now()
	plain := "localhost/plain-" + c.name
	w.must("skopeo", "--insecure-policy", "copy", "-q", source, "containers-storage:"+plain) // podman pull takes no upper case in paths
	// Podman 4 of Debian 12 gives three capabilities more than today's.
	theirs := w.observe(t, c, plain, "--network", "none", "--cap-drop", "AUDIT_WRITE,MKNOD,NET_RAW")
	tookPlain := time.Since(start)
	extra := []string{"--fs", fs, "--network", "none", "--memory", "1024"}
	image := w.buildFrom("corpus-"+c.name+"-"+fs, source, extra...)
	tookBuild := time.Since(start) - tookPlain
	ours := w.observe(t, c, image, "--runtime", "krun", "--network", w.network())
	if got, want := ours["limit open files"], "1048576 1048576 files"; got != want {
		t.Errorf("limit of open files is %s, expected Podman's default, %s", got, want)
	}
	t.Logf("plain %.0f s, build %.0f s, ours %.0f s; %d items", tookPlain.Seconds(), tookBuild.Seconds(), (time.Since(start) - tookPlain - tookBuild).Seconds(), len(theirs))
	w.must("podman", "rmi", "-f", image, plain)
	delete(theirs, "limit open files") // what this machine allows
	delete(ours, "limit open files")
	return compareItems(theirs, ours)
}

// lastLine is what the agent says at the end, on the workload's stderr.
var lastLine = regexp.MustCompile(`(?m)^(.*)ccrun: exit status (\d+)\n\z`)

// startedLine is what it says at first.
var startedLine = regexp.MustCompile(`(?m)^.*ccrun: workload started\n`)

// observe runs the image, stops it if it is a server, and returns what was
// seen, by item.
func (w *rigWorld) observe(t *testing.T, c corpusImage, image string, flags ...string) map[string]string {
	t.Helper()
	w.must("podman", append(append([]string{"run", "-d", "--name", c.name}, flags...), image)...)
	defer w.run("podman", "rm", "-f", "-t", "1", c.name)
	if len(c.ask) > 0 {
		w.awaitLog(t, c.name, "@@ ready = yes")
		w.awaitLog(t, c.name, c.says)
		w.stop(c.name)
	}
	status := strings.TrimSpace(w.must("podman", "wait", c.name))
	logs := w.run("podman", "logs", c.name)
	seen := map[string]string{"status that Podman sees": status, "status": status}
	if m := lastLine.FindStringSubmatch(logs.stderr); m != nil {
		seen["status"], seen["last line of stderr"] = m[2], "ccrun: exit status"
		logs.stderr = startedLine.ReplaceAllString(strings.TrimSuffix(logs.stderr, m[0]), "")
	}
	var said strings.Builder
	for line := range strings.Lines(logs.stdout) {
		key, value, found := strings.Cut(strings.TrimPrefix(line, "@@ "), " = ")
		if !strings.HasPrefix(line, "@@ ") || !found {
			said.WriteString(line)
			continue
		}
		seen[key] = strings.TrimSuffix(value, "\n")
	}
	seen["stdout"], seen["stderr"] = said.String(), logs.stderr
	if c.differs != nil {
		seen["stdout"], seen["stderr"] = c.differs.ReplaceAllString(seen["stdout"], ""), c.differs.ReplaceAllString(seen["stderr"], "")
	}
	delete(seen, "limit processes") // of the machine's size, as
	delete(seen, "limit pending signals")
	if len(seen) < 50 {
		t.Errorf("the probe of %s did not say enough: %s", image, logs)
	}
	return seen
}
