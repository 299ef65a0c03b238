package podman

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/domain/entities/types"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun"
)

// Workload is a container of a workload image. What the image says of itself is
// the host's to change; only the key server knows what really runs.
type Workload struct {
	ID           string        `json:"id"`
	Name         string        `json:"name"`
	WorkloadID   string        `json:"workload_id"`
	Image        string        `json:"image"`
	State        State         `json:"state"`
	Status       *int          `json:"status,omitempty"` // the exit status, once there is one
	Since        *time.Time    `json:"since,omitempty"`  // when it began to run, or ended
	Server       string        `json:"server,omitempty"` // whom it asks for its key
	TEE          string        `json:"tee"`
	CPUs         uint8         `json:"cpus,omitempty"`
	MemoryMiB    uint          `json:"memory_mib,omitempty"` // the machine's
	Measurements []Measurement `json:"measurements"`
}

// Measurement is a launch digest that the image was built for.
type Measurement struct {
	Profile      string `json:"profile"`
	LaunchDigest string `json:"launch_digest"`
}

// State is what a workload does: a state of Podman's, or of these.
type State string

// States that Podman does not tell apart.
const (
	Waiting State = "waiting" // runs, and waits for its key server
	Denied  State = "denied"  // has ended, for the server refused its key
)

const (
	logTail        = "25"     // lines in which a state is looked for
	maxConfigBytes = 64 << 10 // of /krun-sev.json
	maxArchive     = maxConfigBytes + 8<<10
)

// waits is the agent's line while no server answers; libkrun's log has a prefix.
var waits = regexp.MustCompile(`^(?:\[[^\]]{1,64} init_or_kernel\] )?ccrun-init: asking \S+ .*; trying again`)

// Workloads is the containers of workload images, by name: those that run, or
// with all those that have ended, too.
func (s *Service) Workloads(ctx context.Context, all bool) ([]Workload, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	list, err := containers.List(conn, &containers.ListOptions{All: &all})
	if err != nil {
		return nil, hint.With(fmt.Errorf("listing Podman's containers: %w", err), "try `podman ps`")
	}
	found := []Workload{} // [] in JSON, not null
	for _, c := range list {
		if c.IsInfra || c.Labels[krun.LabelVersion] == "" && c.Labels[krun.LabelLayout] == "" {
			continue
		}
		w := described(c)
		s.lookInside(ctx, &w)
		s.askLog(ctx, &w)
		found = append(found, w)
	}
	slices.SortFunc(found, func(a, b Workload) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
	return found, nil
}

// described is what Podman's list has of a container.
func described(c types.ListContainer) Workload {
	w := Workload{
		ID: c.ID, Image: cmp.Or(c.Image, c.ImageID), State: State(c.State), TEE: c.Labels[krun.LabelTEE],
		WorkloadID: c.Labels[krun.LabelWorkloadID], Measurements: []Measurement{},
	}
	if len(c.Names) > 0 {
		w.Name = c.Names[0]
	}
	at := c.StartedAt
	if c.Exited {
		status := int(c.ExitCode)
		at, w.Status = c.ExitedAt, &status
	}
	if at > 0 {
		t := time.Unix(at, 0).UTC()
		w.Since = &t
	}
	for m := range strings.SplitSeq(c.Labels[krun.LabelLaunchDigests], ",") {
		if profile, digest, ok := strings.Cut(m, "="); ok {
			w.Measurements = append(w.Measurements, Measurement{profile, digest})
		}
	}
	return w
}

// lookInside adds what /krun-sev.json says. It is in one of the image's layers,
// which a user without root may read, too. Where these are elsewhere Podman may
// give it away; of a running container under krun-sim, whose processes are not
// in its root, it does not.
func (s *Service) lookInside(ctx context.Context, w *Workload) {
	b, err := s.layerFile(ctx, w.ID, krun.TEEConfigFile)
	if err != nil {
		b, err = s.file(ctx, w.ID, "/"+krun.TEEConfigFile)
	}
	if err != nil {
		return
	}
	var c krun.TEEConfig
	if json.Unmarshal(b, &c) != nil || c.Validate() != nil {
		return
	}
	w.Server, w.CPUs, w.MemoryMiB = c.AttestationURL, c.CPUs, c.MemoryMiB
	w.TEE, w.WorkloadID = cmp.Or(w.TEE, string(c.TEE)), cmp.Or(w.WorkloadID, c.WorkloadID)
}

// layerFile reads a regular file of an image's layers on this machine.
func (s *Service) layerFile(ctx context.Context, id, name string) ([]byte, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	data, err := containers.Inspect(conn, id, nil)
	if err != nil {
		return nil, err
	}
	if data.GraphDriver == nil {
		return nil, fs.ErrNotExist
	}
	for dir := range strings.SplitSeq(data.GraphDriver.Data["LowerDir"], ":") {
		if b, err := inDirectory(dir, name); err == nil {
			return b, nil
		}
	}
	return nil, fs.ErrNotExist
}

func inDirectory(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return bounded.RegularFS(root.FS(), name, maxConfigBytes)
}

// file reads a regular file of a container's root, as `podman cp` does.
func (s *Service) file(ctx context.Context, id, path string) ([]byte, error) {
	conn, err := s.Connect(ctx)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	get, err := containers.CopyToArchive(conn, id, path, &upTo{w: &archive, left: maxArchive})
	if err != nil {
		return nil, err
	}
	if err := get(); err != nil {
		return nil, err
	}
	r := tar.NewReader(&archive)
	h, err := r.Next()
	if err != nil {
		return nil, err
	}
	if h.Typeflag != tar.TypeReg || h.Size > maxConfigBytes {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxConfigBytes)
	}
	return io.ReadAll(r)
}

// upTo passes so many bytes on.
type upTo struct {
	w    io.Writer
	left int
}

var errTooMuch = errors.New("more than was asked for")

func (u *upTo) Write(p []byte) (int, error) {
	if u.left -= len(p); u.left < 0 {
		return 0, errTooMuch
	}
	return u.w.Write(p)
}

// askLog finds out from a container's last lines what Podman cannot know: that
// the agent waits for its server, and how it ended under libkrun.
func (s *Service) askLog(ctx context.Context, w *Workload) {
	last := logWatch{said: statusWatch{to: io.Discard}}
	if err := s.tail(ctx, w.ID, &last); err != nil {
		return
	}
	switch ended := w.Status != nil; {
	case !ended && w.State == "running" && last.waits:
		w.State = Waiting
	case ended && last.said.seen && *w.Status == 0: // libkrun carries no status
		*w.Status = last.said.status
	}
	if w.Status != nil && *w.Status == krun.StatusDenied {
		w.State = Denied
	}
}

func (s *Service) tail(ctx context.Context, id string, to io.Writer) error {
	conn, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	conn, stop := context.WithCancel(conn)
	defer stop()
	lines, done := make(chan string), make(chan error, 1)
	tail, yes, no := logTail, true, false
	go func() {
		done <- containers.Logs(conn, id, &containers.LogOptions{Tail: &tail, Stdout: &yes, Stderr: &yes, Follow: &no}, lines, lines)
	}()
	for {
		select {
		case text := <-lines:
			if _, err := io.WriteString(to, text); err != nil {
				return err
			}
		case err := <-done:
			return err
		}
	}
}

// logWatch knows of the last line whether it is that of an agent that waits.
type logWatch struct {
	said  statusWatch
	waits bool
	rest  string
}

func (w *logWatch) Write(p []byte) (int, error) {
	for line := range strings.Lines(w.rest + string(p)) {
		text, ended := strings.CutSuffix(line, "\n")
		if w.rest = ""; !ended {
			w.rest = text[:min(len(text), 4*maxStatusLine)]
			continue
		}
		w.waits = waits.MatchString(text)
	}
	return w.said.Write(p)
}

// Is says whether name is the container's, or the beginning of its id.
func (w Workload) Is(name string) bool {
	return name != "" && (name == w.Name || strings.HasPrefix(w.ID, name))
}
