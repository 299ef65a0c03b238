package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	attestcommand "github.com/ccrun/ccrun/cmd/attest-server/command"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/krun/podman/podmantest"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// mistake is one that people make, and what they must be told: what is wrong, and
// what to do. Names in capitals after $ are of the scene.
type mistake struct {
	what   string
	args   string
	set    string // variables, NAME=VALUE
	status int
	cause  string // regular expressions, of standard error
	next   string // empty: nothing but the cause can be said
}

// TestMistakes types mistakes. All must name the cause; 9 of 10 the next step, or
// the cause is one that says it by itself.
func TestMistakes(t *testing.T) {
	s := newScene(t)
	silent := 0
	list := mistakes()
	for _, m := range list {
		t.Run(m.what, func(t *testing.T) {
			for _, v := range strings.Fields(s.fill(m.set)) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			status, stdout, stderr := typed(t, strings.Fields(s.fill(m.args))...)
			said := strings.ReplaceAll(stdout+stderr, s.dir, "DIR")
			if os.Getenv("CCRUN_MISTAKES") != "" {
				t.Logf("ccrun %s\n%s-> %d", m.args, said, status)
			}
			if status != m.status {
				t.Errorf("status %d, expected %d:\n%s", status, m.status, said)
			}
			if !regexp.MustCompile(`(?m)^ccrun: .*`+m.cause).MatchString(stderr) && !regexp.MustCompile(m.cause).MatchString(said) {
				t.Errorf("the cause, %q, is not named:\n%s", m.cause, said)
			}
			if m.next == "" {
				silent++
				return
			}
			if !regexp.MustCompile(`(?m)^ccrun: hint: .*(` + m.next + `)`).MatchString(stderr) {
				t.Errorf("the next step, %q, is not named:\n%s", m.next, said)
			}
			for _, bad := range []string{"goroutine", "*errors.", "kbs.", "hunter2"} {
				if strings.Contains(said, bad) {
					t.Errorf("%q in\n%s", bad, said)
				}
			}
		})
	}
	t.Logf("%d mistakes, %d without a next step", len(list), silent)
	if silent*10 > len(list) {
		t.Errorf("%d of %d have no next step", silent, len(list))
	}
}

// typed runs ccrun as a shell would.
func typed(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	app := newApp()
	app.Writer, app.ErrWriter, app.Reader = &out, &errs, strings.NewReader("")
	status = program.Run(t.Context(), app, append([]string{"ccrun"}, args...))
	return status, out.String(), errs.String()
}

// scene is a server, its tokens, images and files.
type scene struct {
	dir   string
	words *strings.Replacer
}

func (s scene) fill(text string) string { return s.words.Replace(text) }

func newScene(t *testing.T) scene {
	t.Helper()
	dir := t.TempDir()
	for name, value := range map[string]string{"XDG_CONFIG_HOME": dir + "/none", "HOME": dir, "CONTAINER_HOST": "", "CCRUN_FIRMWARE": "", "CCRUN_ATTEST_URL": ""} {
		t.Setenv(name, value)
	}
	owner := startServer(t)
	lib, _ := testFirmware(t)
	for name, mode := range map[string]os.FileMode{"db.pass": 0o600, "ca-that-is-none.pem": 0o644} {
		imagetest.WriteFile(t, filepath.Join(dir, name), []byte("hunter2\n"))
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	imagetest.App(t).WriteLayout(t, filepath.Join(dir, "own"))
	imagetest.WriteFile(t, filepath.Join(dir, "agent"), staticELF())
	token, err := os.ReadFile(os.Getenv("CCRUN_TOKEN_FILE"))
	if err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "token-0644")
	unknown := filepath.Join(dir, "token-unknown")
	if err := errors.Join(os.WriteFile(open, token, 0o600), os.Chmod(open, 0o644),
		os.WriteFile(unknown, []byte("ccrun_000000000000_"+strings.Repeat("A", 43)), 0o600)); err != nil {
		t.Fatal(err)
	}
	serverTokens(t, dir)
	other, _ := namedChain(t, "127.0.0.1")
	imagetest.WriteFile(t, filepath.Join(dir, "other.pem"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate[1]}))
	host := podmantest.Serve(t, podmantest.Podman{Runtime: "krun", Path: fakeKrun(t, dir), Images: map[string]map[string]string{"localhost/own": {}}})
	plainHost := podmantest.Serve(t, podmantest.Podman{Runtime: "crun", Path: "/usr/bin/crun"})
	build := "build --firmware " + lib + " --agent " + dir + "/agent --attest-url " + owner.URL + " --attest-ca " + os.Getenv("CCRUN_CA")
	s := scene{dir, strings.NewReplacer("$BUILD", build, "$DIR", dir, "$LIB", lib, "$URL", owner.URL, "$HOST", strings.TrimPrefix(owner.URL, "https://"),
		"$CA", os.Getenv("CCRUN_CA"), "$PODMAN", host, "$PLAINPODMAN", plainHost, "$AGENT", dir+"/agent")}
	if status, _, said := typed(t, strings.Fields(s.fill("$BUILD --workload-id own oci:$DIR/own oci:$DIR/own-cw"))...); status != 0 {
		t.Fatal(said)
	}
	return s
}

// staticELF is as little as an agent's packer takes for an agent: it never runs.
func staticELF() []byte {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)
	_ = binary.Write(&b, binary.LittleEndian, h) // a buffer does not fail
	_ = binary.Write(&b, binary.LittleEndian, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R), Filesz: 120, Memsz: 120, Align: 4096})
	return b.Bytes()
}

// fakeKrun says that it is a crun with libkrun.
func fakeKrun(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "krun")
	if err := os.WriteFile(path, []byte("#!/bin/sh\necho crun version 1.28 +LIBKRUN\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// serverTokens makes tokens that are good for less than people think.
func serverTokens(t *testing.T, dir string) {
	t.Helper()
	server := func(args ...string) {
		app := attestcommand.Program{Program: face.Program{Name: "attest-server"}}.App()
		var out bytes.Buffer
		app.Writer, app.ErrWriter = &out, &out
		args = append(append([]string{"attest-server"}, args...), "--data", filepath.Dir(os.Getenv("CCRUN_CA")))
		if err := app.Run(face.Intersperse(app, args)); err != nil {
			t.Fatal(err, out.String())
		}
	}
	server("tenant", "set", "acme", "--max-workloads", "5")
	for name, args := range map[string]string{
		"expired": "--role publisher --expires 1s", "revoked": "--role publisher", "auditor": "--role auditor", "publisher": "--role publisher", "tenants": "--role publisher --tenant acme",
	} {
		server(append([]string{"token", "create", "--token-out", filepath.Join(dir, name)}, strings.Fields(args)...)...)
	}
	_, id, _ := strings.Cut(string(imagetest.Read(t, filepath.Join(dir, "revoked"))), "_")
	id, _, _ = strings.Cut(id, "_")
	server("token", "revoke", id)
	time.Sleep(1100 * time.Millisecond) // until one has expired
}

func mistakes() []mistake {
	return append(append(append(serverMistakes(), imageMistakes()...), flagMistakes()...), runMistakes()...)
}

func serverMistakes() []mistake {
	return []mistake{
		{"no server running", "workload ls", "CCRUN_SERVER=https://127.0.0.1:1", 1, `127\.0\.0\.1:1.*refused`, `attest-server`},
		{"no server configured", "workload ls", "CCRUN_SERVER=", 2, `no attestation server`, `ccrun login`},
		{"wrong path in URL", "workload ls", "CCRUN_SERVER=$URL/api", 2, `/api`, `say https://127`},
		{"http instead of https", "workload ls", "CCRUN_SERVER=http://$HOST", 2, `https`, `say https://127`},
		{"URL without scheme", "workload ls", "CCRUN_SERVER=$HOST", 2, `https://`, `say https://127`},
		{"server name typo", "workload ls", "CCRUN_SERVER=https://keys.exmaple.invalid:8443", 1, `keys.exmaple.invalid`, `check`},
		{"wrong CA", "workload ls", "CCRUN_CA=$DIR/other.pem", 1, `certificate`, `--ca`},
		{"no CA given", "workload ls", "CCRUN_CA=", 1, `certificate`, `--ca`},
		{"CA file missing", "workload ls", "CCRUN_CA=$DIR/nope.pem", 1, `nope.pem`, `ca.pem`},
		{"CA file is not PEM", "workload ls", "CCRUN_CA=$DIR/ca-that-is-none.pem", 2, `no PEM certificate`, `ca.pem`},
		{"another server's token", "workload ls", "CCRUN_TOKEN_FILE=$DIR/token-unknown", 1, `unauthorized`, `token create`},
		{"garbage token", "workload ls", "CCRUN_TOKEN_FILE=$DIR/db.pass", 2, `holds no token`, `token create`},
		{"token file missing", "workload ls", "CCRUN_TOKEN_FILE=$DIR/nope", 1, `nope`, `token`},
		{"no token", "workload ls", "CCRUN_TOKEN_FILE=", 2, `no token`, `--token-file`},
		{"expired token", "workload ls", "CCRUN_TOKEN_FILE=$DIR/expired", 1, `unauthorized`, `token create`},
		{"revoked token", "workload ls", "CCRUN_TOKEN_FILE=$DIR/revoked", 1, `unauthorized`, `token create`},
		{"auditor revokes", "workload revoke own", "CCRUN_TOKEN_FILE=$DIR/auditor", 1, `forbidden.*auditor`, `another role`},
		{"auditor builds", "$BUILD oci:$DIR/own oci:$DIR/x", "CCRUN_TOKEN_FILE=$DIR/auditor", 1, `auditor's`, `--role publisher`},
		{"publisher ends another's workload", "workload revoke own", "CCRUN_TOKEN_FILE=$DIR/publisher", 1, `registered by`, `principal`},
		{"tenant builds without its prefix", "$BUILD --workload-id shop oci:$DIR/own oci:$DIR/x", "CCRUN_TOKEN_FILE=$DIR/tenants", 2, `tenant acme`, `--workload-id acme.shop`},
		{"token file world readable", "workload ls", "CCRUN_TOKEN_FILE=$DIR/token-0644", 1, `0644`, `chmod 0600`},
		{"explain of no session", "explain zzzzzzzz", "", 1, `not_found`, `session ls`},
		{"explain without number", "explain", "", 2, `expected SESSION`, `explain --help`},
		{"show of a wrong id", "workload show onw", "", 1, `onw.*not_found`, `workload ls`},
		{"revoke of a wrong id", "workload revoke onw", "", 1, `onw.*not_found`, `workload ls`},
		{"rm of a wrong id", "workload rm onw", "", 1, `onw.*not_found`, `workload ls`},
		{"config of a wrong id", "workload config show onw", "", 1, `onw`, `workload ls`},
		{"resource that is not there", "resource get-meta own/key/nope", "", 1, `nope`, `resource ls`},
		{"login without URL", "login", "", 2, `expected URL`, `login`},
		{"login with http", "login http://$HOST", "", 2, `https`, `say https://127`},
		{"login without token", "login $URL --ca $CA", "", 2, `no token`, `--token-file`},
		{"login to a port where nobody is", "login https://127.0.0.1:1 --token-file $DIR/token-unknown", "", 1, `refused`, `attest-server`},
		{"context that is not there", "context use nope", "", 1, `nope`, `context ls|login`},
		{"register of what is no record", "register $DIR/db.pass", "", 1, `db.pass is no record`, `--record`},
		{"register of nothing there", "register $DIR/nope.record", "", 1, `nope.record`, `--record`},
		{"update without firmware", "workload update own", "", 2, `--firmware`, `--firmware`},
		{"audit with nonsense", "audit --since yesterday", "", 2, `yesterday`, `24h|time|audit`},
		{"incident of no machine", "incident chip zz", "", 1, `zz|not_found`, `machines`},
		{"monitor without expectation", "monitor own", "", 2, `--expect and --log-key and --state`, `monitor --help`},
	}
}

func imageMistakes() []mistake {
	return []mistake{
		{"source typo", "$BUILD oci:$DIR/onw oci:$DIR/x", "", 1, `onw`, `check|oci:`},
		{"unknown transport", "$BUILD dockr://localhost/own oci:$DIR/x", "", 2, `dockr`, `docker://`},
		{"docker: instead of docker://", "$BUILD docker:localhost/own oci:$DIR/x", "", 2, `docker:localhost/own`, `docker://localhost/own`},
		{"no SOURCE", "build", "", 2, `expected SOURCE DEST`, `build`},
		{"no DEST", "$BUILD oci:$DIR/own", "", 2, `expected SOURCE DEST`, `build`},
		{"three images", "$BUILD a b c", "", 2, `expected SOURCE DEST`, `build`},
		{"registered already", "$BUILD --workload-id own oci:$DIR/own oci:$DIR/x", "", 1, `registered already`, `--replace`},
		{"bad workload id", "$BUILD --workload-id My$Shop oci:$DIR/own oci:$DIR/x", "", 2, `workload id "My.Shop": expected up to 128 letters`, `build --help`},
		{"wrong tee word", "$BUILD --tee sev oci:$DIR/own oci:$DIR/x", "", 2, `snp, tdx or sample`, `build`},
		{"sample with libkrun's firmware", "$BUILD --tee sample oci:$DIR/own oci:$DIR/x", "", 4, `TEE sample on firmware of kind libkrun`, `ccrun-sim firmware`},
		{"firmware that is not there", "build --firmware /nope --agent $AGENT --attest-url $URL --attest-ca $CA oci:$DIR/own oci:$DIR/x", "", 1, `/nope`, `doctor|libkrunfw`},
		{"firmware is a wrong file", "build --firmware $DIR/db.pass --agent $AGENT --attest-url $URL --attest-ca $CA oci:$DIR/own oci:$DIR/x", "", 1, `db.pass`, `libkrunfw`},
		{"agent that is not there", "build --firmware $LIB --agent $DIR/nope --attest-url $URL --attest-ca $CA oci:$DIR/own oci:$DIR/x", "", 1, `nope`, `--agent`},
		{"cpus 0", "$BUILD --cpus 0 oci:$DIR/own oci:$DIR/x", "", 2, `0 vCPUs`, `build`},
		{"cpus two", "$BUILD --cpus two oci:$DIR/own oci:$DIR/x", "", 2, `two`, `build`},
		{"cpus 9", "$BUILD --cpus 9 oci:$DIR/own oci:$DIR/x", "", 2, `9 vCPUs`, `build`},
		{"attest-ca that is not there", "build --firmware $LIB --agent $AGENT --attest-url $URL --attest-ca $DIR/nope.pem oci:$DIR/own oci:$DIR/x", "", 1, `nope.pem`, `ca.pem`},
		{"attest-ca is no certificate", "build --firmware $LIB --agent $AGENT --attest-url $URL --attest-ca $DIR/db.pass oci:$DIR/own oci:$DIR/x", "", 2, `db.pass`, `ca.pem`},
		{"attest-url with http", "build --firmware $LIB --agent $AGENT --attest-url http://$HOST --attest-ca $CA oci:$DIR/own oci:$DIR/x", "", 2, `https`, `say https://127`},
		{"attest-url without scheme", "build --firmware $LIB --agent $AGENT --attest-url $HOST --attest-ca $CA oci:$DIR/own oci:$DIR/x", "", 2, `https`, `say https://127`},
		{"no server at all", "build --firmware $LIB --agent $AGENT oci:$DIR/own oci:$DIR/x", "CCRUN_SERVER= CCRUN_CA=", 2, `server`, `--attest-url|login`},
		{"DEST cannot be written", "$BUILD --workload-id w1 oci:$DIR/own oci:/proc/x:cw", "", 1, `/proc/x`, `.`},
		{"DEST registry down", "$BUILD --retry 0 --workload-id w2 oci:$DIR/own docker://127.0.0.1:1/xyz:1", "", 1, `127.0.0.1:1`, `.`},
		{"no-register without record", "$BUILD --no-register oci:$DIR/own oci:$DIR/x", "", 2, `record`, `--record`},
		{"record that exists", "$BUILD --record $DIR/db.pass oci:$DIR/own oci:$DIR/x", "", 1, `exists`, `another name`},
		{"scratch with nonsense", "$BUILD --scratch big oci:$DIR/own oci:$DIR/x", "", 2, `big`, `build`},
		{"file system that is none", "$BUILD --fs xfs oci:$DIR/own oci:$DIR/x", "", 2, `xfs`, `build`},
		{"volume with nonsense", "$BUILD --volume data oci:$DIR/own oci:$DIR/x", "", 2, `data`, `build`},
		{"logs without recipient", "$BUILD --logs encrypted oci:$DIR/own oci:$DIR/x", "", 2, `recipient`, `build|age`},
		{"replace without id", "$BUILD --replace oci:$DIR/own oci:$DIR/x", "", 2, `--workload-id`, `build`},
		{"inspect of a plain image", "inspect oci:$DIR/own", "", 1, `not|no `, `ccrun build`},
		{"inspect of nothing", "inspect oci:$DIR/nope", "", 1, `nope`, `.`},
		{"rotate of a plain image", "workload rotate own oci:$DIR/own", "", 1, `own`, `ccrun build`},
		{"rotate of a wrong id", "workload rotate onw oci:$DIR/own-cw", "", 1, `onw.*not_found`, `workload ls`},
		{"verify-image without a key", "verify-image oci:$DIR/own", "", 2, `no key`, `--key`},
		{"convert without passphrase", "convert oci:$DIR/own oci:$DIR/x", "", 2, `passphrase`, `.`},
	}
}

func flagMistakes() []mistake {
	return []mistake{
		{"memory 512x", "measure --firmware $LIB --memory 512x", "", 2, `512x`, `measure`},
		{"memory 16", "measure --firmware $LIB --memory 16", "", 2, `16 MiB`, `measure`},
		{"memory 100t", "measure --firmware $LIB --memory 100t", "", 2, `MiB`, `measure`},
		{"measure without initrd", "measure --firmware /nope", "", 1, `/nope`, `libkrunfw|doctor`},
		{"unknown flag", "build --tte sample a b", "", 2, `-tte`, `--tee`},
		{"unknown command", "biuld a b", "", 2, `biuld`, `build`},
		{"unknown subcommand", "workload shwo", "", 2, `shwo`, `show`},
		{"subcommand of another tool", "workload delete own", "", 2, `delete`, `workload rm`},
		{"verify without evidence", "verify", "", 2, `verify: needs --evidence`, `verify --help`},
		{"verify of what is no evidence", "verify --evidence $DIR/db.pass", "", 3, `evidence`, `.`},
		{"verify of nothing", "verify --evidence $DIR/nope", "", 1, `nope`, `.`},
		{"completion of an unknown shell", "completion tcsh", "", 2, `tcsh`, `bash|completion`},
		{"field that is not there", "workload ls --format {{.Nope}}", "", 2, `Nope`, `WorkloadID`},
		{"format yaml", "workload ls --format yaml", "", 2, `yaml`, `json`},
		{"template that is broken", "workload ls --format {{.", "", 2, `--format`, `.`},
		{"log level that is none", "workload ls --log-level loud", "", 2, `loud`, `.`},
		{"too many arguments", "workload ls own", "", 2, `own`, `workload show|--help`},
		{"certs from nowhere", "certs import $DIR/nope", "", 1, `nope`, `.`},
		{"firmware inspect of a wrong file", "firmware inspect $DIR/db.pass", "", 1, `db.pass`, `.`},
		{"a command of the server's", "token create", "", 2, `unknown command "token"`, `attest-server token`},
		{"a command of Podman's", "stop own", "", 2, `unknown command "stop"`, `podman stop`},
	}
}

func runMistakes() []mistake {
	return []mistake{
		{"run without image", "run", "", 125, `expected IMAGE`, `run`},
		{"run -v", "run --rm -v /tmp:/data localhost/own-cw", "", 125, `--volume cannot`, `build`},
		{"run -e", "run --rm -e GREETING=x localhost/own-cw", "", 125, `--env cannot`, `workload config`},
		{"run with arguments", "run --rm localhost/own-cw sh", "", 125, `arguments`, `--args-allow`},
		{"run -p foo", "run --rm -p foo localhost/own-cw", "", 125, `foo`, `HOST:CONTAINER|8080:80`},
		{"run -it", "run -it --rm localhost/own-cw", "", 125, `-it|terminal`, `run`},
		{"run --secret", "run --secret kbs:///shop/db/password,target=/x localhost/own-cw", "", 125, `secret`, `.`},
		{"run --privileged", "run --privileged localhost/own-cw", "", 125, `privileged`, `.`},
		{"run --pull sometimes", "run --pull sometimes localhost/own-cw", "", 125, `sometimes`, `.`},
		{"run of an image not built by ccrun", "run --url $PODMAN localhost/own", "", 125, `not a confidential`, `ccrun build`},
		{"run of a typo", "run --url $PODMAN --pull never localhost/onw", "", 125, `onw`, `podman pull`},
		{"Podman out of reach", "run --url tcp://127.0.0.1:1 localhost/own", "", 125, `127.0.0.1:1`, `podman.socket`},
		{"a service with another runtime", "run --url $PLAINPODMAN localhost/own", "", 125, `"crun", not "krun"`, `containers.conf`},
		{"ps with an argument", "ps own", "", 2, `own`, `.`},
		{"top of nobody", "top --url $PODMAN own", "", 1, `own`, `ccrun ps`},
		{"exec", "exec own ls", "", 2, `exec`, `confidential VM`},
		{"cp", "cp own:/x .", "", 2, `cp`, `confidential VM`},
		{"logs without a key", "logs own", "", 2, `needs --identity`, `logs --help`},
		{"quadlet with a bad port", "quadlet -p foo localhost/own-cw", "", 2, `foo`, `8080:80`},
		{"volume of nobody", "volume inspect nope --dir $DIR/vol", "", 1, `nope`, `volume (ls|create)`},
	}
}
