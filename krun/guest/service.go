package guest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/krun/cdh"
)

// The workload's service (krun/cdh) is a process of its own, which has the right
// to ask the key server for the workload's resources and the report device, and
// nothing of the disk. PID 1 makes its sockets and keeps them open as long as the
// VM lives: under TSI a client for whom nobody listens in the guest is connected
// to the host, who could answer.

const serviceSocket = "cdh.sock"

// withService starts the workload's service before the report device is given up.
func withService(late []step) (steps []step) {
	for _, s := range late {
		if s.name == "locking down the kernel" {
			steps = append(steps, step{"starting the workload's service", told((*boot).startService)})
		}
		steps = append(steps, s)
	}
	return steps
}

// startService starts the service, if the image asks for it, before the report
// device is given up.
func (b *boot) startService(ctx context.Context) error {
	if !b.identity.Policy.CDH {
		return nil
	}
	sockets, err := openService(serviceDir)
	if err != nil {
		return err
	}
	b.service = sockets // open for as long as the VM lives
	result, err := b.spawnService(sockets)
	if err != nil {
		return fmt.Errorf("starting the service: %w", err)
	}
	if err := awaitService(ctx, result); err != nil {
		return err
	}
	b.spawn("watching the service", func() {
		_, _ = result.Read(make([]byte, 1)) // its end
		b.console.line("the workload's service ended, and the VM with it; next: give the machine more memory, or report it")
		b.shutDown(statusBootFailed)
	})
	return nil
}

// openService makes the sockets: on both loopbacks, since a program that looks
// localhost up may try either, and below dir.
func openService(dir string) (sockets []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range sockets {
				_ = f.Close()
			}
		}
	}()
	err = withoutTSI(hijack, func() error {
		for _, at := range []struct {
			network, address string
			domain           int
		}{{"tcp4", "127.0.0.1", unix.AF_INET}, {"tcp6", "::1", unix.AF_INET6}} {
			f, err := listenAt(at.network, net.JoinHostPort(at.address, fmt.Sprint(cdh.Port)))
			if at.domain == unix.AF_INET6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EADDRNOTAVAIL)) {
				continue // a kernel without
			}
			if err == nil {
				sockets = append(sockets, f)
				err = checkDomain(f, at.domain)
			}
			if err != nil {
				return fmt.Errorf("listening on %s: %w", at.address, err)
			}
		}
		return nil
	})
	if err != nil {
		return sockets, err
	}
	if err := (mount{"tmpfs", dir, "tmpfs", noExec, "mode=755,size=64k"}).do(); err != nil {
		return sockets, err
	}
	path := dir + "/" + serviceSocket
	f, err := listenAt("unix", path)
	if err != nil {
		return sockets, fmt.Errorf("listening on %s: %w", path, err)
	}
	return append(sockets, f), os.Chmod(path, 0o666)
}

// listenAt is a listening socket's descriptor. Closing the listener would remove
// a unix socket's name.
func listenAt(network, address string) (*os.File, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	defer func() { _ = l.Close() }()
	return l.(interface{ File() (*os.File, error) }).File()
}

// checkDomain refuses a socket that is TSI's: it would be the host's.
func checkDomain(f *os.File, want int) error {
	got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err == nil && got != want {
		err = fmt.Errorf("the socket is of domain %d, expected %d: it would pass through the host", got, want)
	}
	return err
}

// withoutTSI runs act while sockets that are made are the guest's own, and leaves
// the switch as it was.
func withoutTSI(path string, act func() error) error {
	was, err := bounded.File(path, 16)
	if errors.Is(err, os.ErrNotExist) {
		return act() // a kernel without
	}
	if err != nil {
		return err
	}
	if err := switchOff(path); err != nil {
		return err
	}
	return errors.Join(act(), sysctl{path, strings.TrimSpace(string(was))}.apply())
}

// serviceName is argv[0] of this program as the service.
const serviceName = "ccrun-init-service"

// spawnService starts this program as the service, in a mount namespace of its
// own: what PID 1 takes away there stays here, and nowhere else.
func (b *boot) spawnService(sockets []*os.File) (result *os.File, err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = null.Close() }()
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = specR.Close() }()
	resultR, resultW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, specW.Close())
	}
	defer func() { _ = resultW.Close() }()
	files := []uintptr{null.Fd(), null.Fd(), null.Fd(), specR.Fd(), resultW.Fd()}
	for _, f := range sockets {
		files = append(files, f.Fd())
	}
	_, err = syscall.ForkExec("/proc/self/exe", []string{serviceName}, &syscall.ProcAttr{
		Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: syscall.CLONE_NEWNS},
	})
	if err != nil {
		return nil, errors.Join(err, specW.Close(), resultR.Close())
	}
	b.spawn("telling the service its part", func() {
		_ = json.NewEncoder(specW).Encode(b.serviceSpec(len(sockets)))
		_ = specW.Close()
	})
	return resultR, nil
}

// awaitService waits until the service serves, or says why it cannot.
func awaitService(ctx context.Context, result *os.File) error {
	stop := context.AfterFunc(ctx, func() { _ = result.Close() })
	defer stop()
	var said [256]byte
	n, err := result.Read(said[:])
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return cause
	case n == 1 && said[0] == executing:
		return nil
	case n > 0:
		return fmt.Errorf("the service does not start: %s", oneLine(string(said[:n])))
	}
	return fmt.Errorf("the service does not start: %w", err)
}
