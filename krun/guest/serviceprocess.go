package guest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun"
	"github.com/ccrun/ccrun/krun/cdh"
	"github.com/ccrun/ccrun/secret"
)

// serviceSpec is all that the service knows.
type serviceSpec struct {
	WorkloadID string
	TEE        kbs.TEE
	Servers    krun.Servers
	Renewal    *kbs.Renewal
	Sockets    int
}

const maxServiceSpec = 256 << 10

func (b *boot) serviceSpec(sockets int) serviceSpec {
	return serviceSpec{WorkloadID: b.identity.WorkloadID, TEE: b.identity.TEE, Servers: b.identity.Servers, Renewal: b.renewal, Sockets: sockets}
}

// runService is the service. It returns only if it could not begin; PID 1 learns
// of its end by the end of its result pipe.
func runService(find func(context.Context, kbs.TEE) (Attester, error), early error) {
	for fd := specFD; fd <= resultFD; fd++ {
		unix.CloseOnExec(fd)
	}
	result := os.NewFile(resultFD, "result")
	servers, err := []*serving(nil), early
	if err == nil {
		servers, err = prepareService(find)
	}
	if err != nil {
		_, _ = result.WriteString(cut(err.Error())[:min(len(err.Error()), 200)])
		return
	}
	ended := make(chan struct{}, len(servers))
	for _, s := range servers {
		go func() {
			defer func() { _ = recover(); ended <- struct{}{} }()
			_ = s.server.Serve(s.listener)
		}()
	}
	_, _ = result.Write([]byte{executing})
	<-ended
}

type serving struct {
	server   *http.Server
	listener net.Listener
}

func prepareService(find func(context.Context, kbs.TEE) (Attester, error)) ([]*serving, error) {
	var spec serviceSpec
	if err := kbs.DecodeStrict(os.NewFile(specFD, "specification"), maxServiceSpec, &spec); err != nil {
		return nil, fmt.Errorf("reading its part: %w", err)
	}
	if spec.Renewal == nil {
		return nil, errors.New("it has no right to ask")
	}
	listeners, err := serviceListeners(spec.Sockets)
	if err != nil {
		return nil, err
	}
	if err := leaveMounts(); err != nil {
		return nil, err
	}
	attester, err := find(context.Background(), spec.TEE)
	if err == nil {
		attester, err = holdDevice(attester)
	}
	if err != nil {
		return nil, fmt.Errorf("finding the TEE's report interface: %w", err)
	}
	if err := confineService(); err != nil {
		return nil, err
	}
	s := &cdh.Service{Source: &guestSource{spec: spec, attester: attester}}
	var all []*serving
	for _, l := range listeners {
		_, local := l.(*net.UnixListener)
		all = append(all, &serving{s.Server(local), cdh.Bounded(l)})
	}
	return all, nil
}

// serviceListeners are what PID 1 listens on, from the descriptor behind the
// result's.
func serviceListeners(n int) (all []net.Listener, err error) {
	if n < 1 || n > 3 {
		return nil, fmt.Errorf("%d sockets, expected 1 to 3", n)
	}
	for fd := resultFD + 1; fd <= resultFD+n; fd++ {
		f := os.NewFile(uintptr(fd), "socket")
		l, err := net.FileListener(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("taking socket %d: %w", fd, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// leaveMounts takes everything out of this mount namespace but what a report
// needs: the disk above all, which would stay open otherwise.
func leaveMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	list, err := bounded.File("/proc/self/mounts", 1<<20)
	if err != nil {
		return err
	}
	for _, dir := range foreignMounts(string(list)) {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("unmounting %s: %w", dir, err)
		}
	}
	return nil
}

// foreignMounts are the mount points of proc_pid_mounts(5) that are not the
// service's, the last mounted first.
func foreignMounts(list string) (dirs []string) {
	own := []string{"/", "/dev", "/proc", "/sys", configfsPath}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(list) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		if dir := unescape.Replace(f[1]); !slices.Contains(own, dir) {
			dirs = append(dirs, dir)
		}
	}
	slices.Reverse(dirs)
	return dirs
}

// holdDevice keeps a device open whose node PID 1 is about to remove.
func holdDevice(a Attester) (Attester, error) {
	s, ok := a.(sevGuest)
	if !ok {
		return a, nil
	}
	fd, err := unix.Open(s.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return sevGuest{path: fmt.Sprintf("/proc/self/fd/%d", fd)}, nil
}

// confineService leaves the service no capability, on any of its threads.
func confineService() error {
	if _, _, errno := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("refusing new privileges: %w", errno)
	}
	for c := range uintptr(lastCapability + 1) {
		if _, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, c, 0); errno != 0 && errno != unix.EINVAL {
			return fmt.Errorf("dropping capability %d: %w", c, errno)
		}
	}
	return noCapabilities()
}

// guestSource asks the key server as the workload, and the TEE.
type guestSource struct {
	spec     serviceSpec
	attester Attester

	mu sync.Mutex // one report at a time
}

// evidenceTimeout bounds a host that throttles reports.
const evidenceTimeout = 20 * time.Second

// Evidence implements cdh.Source.
func (s *guestSource) Evidence(ctx context.Context, data []byte) (kbs.Evidence, error) {
	rd, err := kbs.GuestBinding(s.spec.WorkloadID, data)
	if err != nil {
		return kbs.Evidence{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, evidenceTimeout)
	defer cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attester.Attest(ctx, rd)
}

// renewer asks the servers of the measured identity and no others, each once.
func (s *guestSource) renewer() *kbs.Renewer {
	client := &kbs.Client{URLs: s.spec.Servers.URLs, PinnedKeys: s.spec.Servers.PinnedKeys}
	return &kbs.Renewer{Client: client, Workload: s.spec.WorkloadID, Renewal: s.spec.Renewal}
}

// Resource implements cdh.Source.
func (s *guestSource) Resource(ctx context.Context, id kbs.ResourceID) (secret.Bytes, error) {
	got, err := s.renewer().Secrets(ctx, []string{id.String()})
	if err != nil {
		return secret.Bytes{}, err
	}
	r := got[id.String()]
	if r.Refused != "" || r.Value.Len() == 0 {
		return secret.Bytes{}, refusedResource(r.Refused)
	}
	return r.Value, nil
}

// refusedResource is the server's answer to a question for one resource alone.
func refusedResource(code string) error {
	if code == kbs.CodeForbidden {
		return &kbs.ProblemError{Problem: kbs.Problem{Status: http.StatusForbidden, Code: code}}
	}
	return &kbs.ProblemError{Problem: kbs.Problem{Status: http.StatusNotFound, Code: kbs.CodeNotFound}}
}

// Token implements cdh.Source.
func (s *guestSource) Token(ctx context.Context) (string, error) {
	return s.renewer().Token(ctx)
}
