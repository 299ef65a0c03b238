package workload

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
)

// maxClassicURL is what the old init's buffer holds (kbs_curl.c: 100 bytes
// with the NUL).
const maxClassicURL = 99

// checkURL keeps to the old client's buffers.
func checkURL(server, workloadID string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return hint.Usagef("server URL %q: expected http(s)://HOST[:PORT]", server)
	}
	if n := len(strings.TrimSuffix(server, "/") + "/kbs/v0/key/" + workloadID); n > maxClassicURL {
		return hint.With(hint.Usagef("server URL and workload id make %d bytes, the old init has room for %d", n, maxClassicURL), "choose a shorter --workload-id")
	}
	return nil
}

// maxOldInitrd bounds what an initrd may unpack to.
const maxOldInitrd = 64 << 20

// checkOldInit looks for the attestation client in the firmware's own init.
// Since libkrunfw 5 it has none: such a guest would mount ciphertext.
func checkOldInit(initrd []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(initrd))
	if err != nil {
		return hint.With(fmt.Errorf("reading the firmware's initrd: %w", err), "--classic needs the firmware's own initrd: libkrunfw-sev.so.4")
	}
	z.Multistream(false)
	b, err := bounded.Read(z, "the firmware's initrd", maxOldInitrd)
	if err != nil {
		return err
	}
	if !bytes.Contains(b, []byte("/kbs/v0/")) {
		return hint.With(fmt.Errorf("the firmware's init has no attestation client: a classic image %w", ErrNotCapable), "use libkrunfw before version 5, or build without --classic")
	}
	return nil
}

// classicProcess is the configuration in a form that cannot confuse the old
// init: it compares every string in the file with the names of its members,
// wherever it stands, and runs /bin/sh when there is an Entrypoint but no Cmd.
// So Cmd is the whole command, WorkingDir stands before it, and the one name
// that could then still be found in it is refused.
func classicProcess(config imgspec.ImageConfig, warn func(string)) ([]byte, error) {
	p := processOf(config, warn)
	raw, err := kbs.Canonical(p)
	if err == nil {
		err = checkProcess(raw)
	}
	if err != nil {
		return nil, err
	}
	out := struct {
		WorkingDir string
		Cmd, Env   []string
	}{p.WorkingDir, append(p.Entrypoint, p.Cmd...), p.Env}
	if out.WorkingDir == "" {
		out.WorkingDir = "/"
	}
	for _, a := range out.Cmd {
		if strings.EqualFold(a, "entrypoint") {
			return nil, fmt.Errorf("the old init takes the argument %q for a member of its configuration", a)
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err = e.Encode(out)
	return bytes.TrimSpace(b.Bytes()), err
}
