package tests

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sealedServer is an attest-server whose master key only a TPM, which swtpm
// plays, can unseal. systemd-creds does what systemd does for
// LoadCredentialEncrypted=: there is no systemd that runs here.
type sealedServer struct {
	t                           *testing.T
	bin, dir, data, token, cred string
	tpm                         string // socket
}

func startTPM(t *testing.T) (socket string) {
	t.Helper()
	dir := t.TempDir()
	socket = filepath.Join(dir, "tpm")
	cmd := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--seccomp", "action=none",
		"--server", "type=unixio,path="+socket, "--ctrl", "type=unixio,path="+socket+".ctrl", "--flags", "not-need-init")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	if !eventually(func() bool { _, err := os.Stat(socket); return err == nil }) {
		t.Fatal("swtpm does not listen")
	}
	return socket
}

// restartTPM switches the TPM off in order, and on: systemd-creds 252 leaves
// its sessions behind, which on a machine the kernel clears.
func restartTPM(t *testing.T, socket string) {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, command := range []string{
		"\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x44\x00\x00", // TPM2_Startup(CLEAR), if nobody did
		"\x80\x01\x00\x00\x00\x0c\x00\x00\x01\x45\x00\x00", // TPM2_Shutdown(CLEAR)
	} {
		if _, err := c.Write([]byte(command)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("swtpm_ioctl", "--unix", socket+".ctrl", "-i").CombinedOutput(); err != nil {
		t.Fatalf("swtpm_ioctl: %v\n%s", err, out)
	}
}

// creds is a systemd-creds command with the TPM at socket.
func creds(socket, verb string, args ...string) string {
	line := []string{"systemd-creds", verb, "--name=master-key", "--tpm2-device=swtpm:path=" + socket}
	if verb == "encrypt" {
		line = append(line, "--with-key=tpm2", "--tpm2-pcrs=7")
	}
	return strings.Join(append(line, args...), " ")
}

func (s *sealedServer) shell(script string) (string, error) {
	s.t.Helper()
	restartTPM(s.t, s.tpm)
	cmd := exec.CommandContext(s.t.Context(), "bash", "-c", "set -euo pipefail; umask 077\n"+script)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		s.t.Logf("%s\n%s", script, stderr.String())
	}
	return string(out), err
}

// unseal passes what the TPM at socket makes of the credential file.
func (s *sealedServer) unseal(socket, cred string) (directory string, err error) {
	s.t.Helper()
	directory = s.t.TempDir()
	_, err = s.shell(creds(socket, "decrypt", cred, filepath.Join(directory, "master-key")))
	return directory, err
}

// serve starts the server and returns its URL, or what it said instead.
func (s *sealedServer) serve(credentials string) (url, said string, stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	cmd := exec.CommandContext(ctx, s.bin, "serve", "--data", s.data, "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "CREDENTIALS_DIRECTORY="+credentials)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	stop = func() { cancel(); cmd.Wait() }
	s.t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		return "", stderr.String(), stop
	}
	return strings.TrimSpace(line), "", stop
}

// status is the answer to a request that needs the token, and with it the key.
func (s *sealedServer) status(url string) int {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.data, "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	token, err := os.ReadFile(s.token)
	if err != nil {
		s.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(s.t.Context(), http.MethodDelete, url+"/v1/workloads/none", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// nowhere looks for the key in every file there is.
func (s *sealedServer) nowhere(key []byte) {
	s.t.Helper()
	if len(key) != 32 {
		s.t.Fatalf("key of %d bytes", len(key))
	}
	files := 0
	filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files++
			if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, key) {
				s.t.Errorf("%s holds the master key: %v", path, err)
			}
		}
		return nil
	})
	if files < 6 {
		s.t.Errorf("only %d files", files)
	}
}

// TestMasterKeyInTPM does with a TPM what docs/operations.md tells operators
// to: make a store whose key goes from init into the TPM, start it, change the
// key under it, start it again; another TPM opens nothing.
func TestMasterKeyInTPM(t *testing.T) {
	endToEnd(t)
	for _, tool := range []string{"swtpm", "swtpm_ioctl", "systemd-creds"} {
		_, err := exec.LookPath(tool)
		need(t, err)
	}
	dir := t.TempDir()
	s := &sealedServer{t: t, bin: filepath.Join(binDir(t), "attest-server"), dir: dir,
		data: filepath.Join(dir, "data"), token: filepath.Join(dir, "token"), cred: filepath.Join(dir, "master-key.cred"), tpm: startTPM(t)}
	must := func(script string) string {
		t.Helper()
		out, err := s.shell(script)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	must(s.bin + " init --data " + s.data + " --name 127.0.0.1 --token-out " + s.token + " --master-key-out - | " + creds(s.tpm, "encrypt", "-", s.cred))
	first := must(creds(s.tpm, "decrypt", s.cred, "-"))
	s.nowhere([]byte(first))

	if _, said, _ := s.serve(t.TempDir()); !strings.Contains(said, "reading master key") {
		t.Errorf("without the credential: %s", said)
	}
	if _, err := s.unseal(startTPM(t), s.cred); err == nil {
		t.Error("another TPM unseals the key")
	}
	credentials, err := s.unseal(s.tpm, s.cred)
	if err != nil {
		t.Fatal(err)
	}
	url, said, stop := s.serve(credentials)
	if url == "" {
		t.Fatal(said)
	}
	if got := s.status(url); got != http.StatusNotFound {
		t.Errorf("status %d", got)
	}

	must(s.bin + " master-key rotate --data " + s.data + " --master-key - --master-key-out - <" + filepath.Join(credentials, "master-key") + " | " +
		creds(s.tpm, "encrypt", "-", s.cred+".new"))
	second := must(creds(s.tpm, "decrypt", s.cred+".new", "-"))
	s.nowhere([]byte(first))
	s.nowhere([]byte(second))
	if got := s.status(url); got != http.StatusNotFound {
		t.Errorf("after the rotation, running on: status %d", got)
	}
	stop()
	for _, cred := range []string{s.cred, s.cred + ".new"} {
		if credentials, err = s.unseal(s.tpm, cred); err != nil {
			t.Fatal(err)
		}
		url, said, stop := s.serve(credentials)
		if url == "" {
			t.Fatalf("with %s: %s", cred, said)
		}
		if got := s.status(url); got != http.StatusNotFound {
			t.Errorf("with %s: status %d", cred, got)
		}
		stop()
	}
	if credentials, err = s.unseal(s.tpm, s.cred); err != nil {
		t.Fatal(err)
	}
	if _, said, _ := s.serve(credentials); !strings.Contains(said, "does not belong to this store") {
		t.Errorf("with the key before the rotation: %s", said)
	}
}
