package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// The server of a site holds a lock on serverLock as long as it runs, and its
// process id is in there: who finds the lock free finds no server.
const (
	serverLock = "server.lock"
	serverLog  = "server.log"
)

// serverPatience is how long the server has to answer, or to end. It makes no
// keys at its start, but the machine may be busy.
const serverPatience = 2 * time.Minute

// start has the server run, in a session of its own, and waits until it takes
// the token that owners will show it.
func (s *site) start(c *cli.Context) error {
	lock, free, err := s.lock()
	if err != nil {
		return err
	}
	defer lock.Close()
	if free {
		if err := s.spawn(lock); err != nil {
			return fmt.Errorf("starting the server: %w", err)
		}
	}
	return s.awaitServer(c.Context, lock)
}

// lock opens the lock, and takes it if no server has it.
func (s *site) lock() (f *os.File, free bool, err error) {
	f, err = os.OpenFile(s.path(serverLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return f, false, nil
	}
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("locking %s: %w", f.Name(), err), f.Close())
	}
	return f, true, nil
}

func (s *site) spawn(lock *os.File) error {
	log, err := os.OpenFile(s.path(serverLog), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(s.self, "attest-server", "serve", "--data", s.path(anchorDir, "data"),
		"--listen", fmt.Sprintf("127.0.0.1:%d", s.port), "--sample-root", s.path(platform))
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.ExtraFiles = []*os.File{lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	pid := strconv.Itoa(cmd.Process.Pid)
	if err := errors.Join(lock.Truncate(0), writeAll(lock, pid)); err != nil {
		return errors.Join(err, cmd.Process.Kill())
	}
	return cmd.Process.Release()
}

func writeAll(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text+"\n"), 0)
	return err
}

// awaitServer asks the server as an owner does, which shows its certificate, the
// token and the port.
func (s *site) awaitServer(ctx context.Context, lock *os.File) error {
	roots, err := face.Roots("the server's CA", s.path(anchorDir, "data", "ca.pem"))
	if err != nil {
		return err
	}
	token, err := face.ReadTokenFile(s.path(anchorDir, "token"))
	if err != nil {
		return err
	}
	defer token.Wipe()
	client := &kbs.AdminClient{URL: s.url(), Token: token, RootCAs: roots}
	ctx, cancel := context.WithTimeout(ctx, serverPatience)
	defer cancel()
	for {
		_, err := client.List(ctx)
		if err == nil {
			return nil
		}
		if pid := s.pid(lock); pid == 0 || syscall.Kill(pid, 0) != nil {
			return hint.With(fmt.Errorf("the server ended: %s", s.lastWords()), "its log is %s; --port chooses another port in a new --dir", s.path(serverLog))
		}
		select {
		case <-ctx.Done():
			return hint.With(fmt.Errorf("asking the server: %w", err), "its log is %s", s.path(serverLog))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (s *site) url() string { return fmt.Sprintf("https://127.0.0.1:%d", s.port) }

// pid is the process id in the lock file; 0: none.
func (s *site) pid(lock *os.File) int {
	b := make([]byte, 32)
	n, _ := lock.ReadAt(b, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid <= 1 {
		return 0
	}
	return pid
}

func (s *site) lastWords() string {
	b, err := bounded.File(s.path(serverLog), 1<<20)
	if err != nil {
		return "its log cannot be read"
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[len(lines)-1]
}

// stop ends the server, if there is one.
func (s *site) stop(ctx context.Context) error {
	for signal, end := syscall.SIGTERM, time.Now().Add(serverPatience); ; {
		lock, free, err := s.lock()
		if err != nil {
			return err
		}
		pid := s.pid(lock)
		if err := lock.Close(); err != nil || free {
			return err
		}
		if pid == 0 {
			return fmt.Errorf("a server holds %s, which has no process id", s.path(serverLock))
		}
		if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("ending the server (process %d): %w", pid, err)
		}
		if signal = syscall.SIGTERM; time.Now().After(end) {
			signal = syscall.SIGKILL
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}
