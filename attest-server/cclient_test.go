package attestserver

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// cClient does byte for byte what the C client in libkrun's old init does, and
// fails where that would overrun a buffer. Every request is a connection of
// its own. It sees no status.
type cClient struct {
	r       *rig
	base    string // as in the disk's footer
	id      string
	digest  byte
	private *rsa.PrivateKey
	cookie  string
	nonce   string
	// What a test changes.
	attestBody func(string) string
	keyID      string
	status     string // of the last answer; the client does not know it
}

func (r *rig) cClient(id string, digest byte) *cClient {
	r.t.Helper()
	return &cClient{r: r, base: r.http.URL, id: id, keyID: id, digest: digest, private: verifiertest.RSAKeys()[0]}
}

var errOverrun = errors.New("buffer overrun")

// perform is curl_easy_perform with cwrite: the first piece of the body is
// taken for all of it. buffer is the size of where it is copied to.
func (c *cClient) perform(method, fullURL, body string, urlBuffer, buffer int) (string, error) {
	if len(fullURL)+1 > urlBuffer {
		return "", fmt.Errorf("URL of %d characters: %w", len(fullURL), errOverrun)
	}
	u, err := url.Parse(fullURL)
	if err != nil {
		return "", err
	}
	conn, err := tls.Dial("tcp", u.Host, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	head := method + " " + strings.TrimPrefix(fullURL, "https://"+u.Host) + " HTTP/1.1\r\nHost: " + u.Host + "\r\n"
	if c.cookie != "" {
		if len(c.cookie)+1 > 100 {
			return "", fmt.Errorf("cookie of %d characters: %w", len(c.cookie), errOverrun)
		}
		head += "Cookie: session_id=" + c.cookie + "\r\n" // libcurl's engine
	}
	head += "Accept: application/json\r\nContent-Type: application/json; charset=utf-8\r\n"
	if c.cookie != "" {
		head += "Cookie: session_id=" + c.cookie + "\r\n" // and the client itself
	}
	if method == "POST" {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
	}
	if _, err := io.WriteString(conn, head+"\r\n"+body); err != nil {
		return "", err
	}
	piece, err := c.firstPiece(conn)
	if err != nil {
		return "", err
	}
	if i := strings.IndexByte(piece, 0); i >= 0 {
		piece = piece[:i] // a C string
	}
	if len(piece)+1 > buffer {
		return "", fmt.Errorf("body of %d bytes: %w", len(piece), errOverrun)
	}
	return piece, nil
}

// firstPiece is the part of the body that arrives first.
func (c *cClient) firstPiece(conn io.Reader) (string, error) {
	var got []byte
	buf := make([]byte, 16<<10)
	for {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		head, body, whole := bytes.Cut(got, []byte("\r\n\r\n"))
		if !whole {
			if err != nil {
				return "", err
			}
			continue
		}
		length := -1
		for i, line := range strings.Split(string(head), "\r\n") {
			name, value, _ := strings.Cut(line, ": ")
			switch {
			case i == 0:
				c.status = line
			case strings.EqualFold(name, "Content-Length"):
				fmt.Sscan(value, &length)
			case strings.EqualFold(name, "Transfer-Encoding"):
				return "", fmt.Errorf("transfer encoding %s", value)
			case strings.EqualFold(name, "Set-Cookie"):
				c.setCookie(value)
			}
		}
		if length < 0 {
			return "", errors.New("no length")
		}
		if length > 0 && len(body) == 0 {
			if n, err = conn.Read(buf); err != nil && n == 0 {
				return "", err
			}
			body = buf[:n]
		}
		return string(body), nil
	}
}

func (c *cClient) setCookie(text string) {
	parsed, err := http.ParseSetCookie(text)
	if err != nil || !strings.Contains(parsed.Name, "session_id") || !strings.HasPrefix("/kbs/v0/key/"+c.id, parsed.Path) {
		c.r.t.Errorf("Set-Cookie %q: %v", text, err)
		return
	}
	c.cookie = parsed.Value
}

func (c *cClient) auth() error {
	body := fmt.Sprintf(`{"extra-params":"{\"workload_id\":\"%s\"}","tee":"snp","version":"0.0.0"}`, c.id)
	if len(body)+1 > 1024 {
		return errOverrun
	}
	answer, err := c.perform("POST", c.base+"/kbs/v0/auth", body, 256, 0x1000)
	if err != nil {
		return err
	}
	// find the label by its prefix, then the string after it
	_, rest, ok := strings.Cut(answer, `"nonce`)
	if ok {
		_, rest, ok = strings.Cut(rest, ":")
	}
	rest, quoted := strings.CutPrefix(strings.TrimLeft(rest, " "), `"`)
	end := strings.IndexByte(rest, '"')
	if !ok || !quoted || end < 0 || end >= 1024 {
		return fmt.Errorf("unable to parse nonce from %q", answer)
	}
	c.nonce = rest[:end]
	return nil
}

func modulus(k *rsa.PrivateKey) string { return base64.StdEncoding.EncodeToString(k.N.Bytes()) }

// request is the body of attest over the nonce that the client now has.
func (c *cClient) request() string {
	mod, exp := modulus(c.private), "AQAB"
	rd := sha512.Sum512([]byte(c.nonce + mod + exp))
	a, _, _ := platform(c.r.t)
	l, err := sample.NewLaunch(kbs.LaunchDigest{c.digest})
	if err != nil {
		c.r.t.Fatal(err)
	}
	ev, err := a.Sign(rd, l)
	if err != nil {
		c.r.t.Fatal(err)
	}
	return fmt.Sprintf(`{"tee-pubkey":{"alg":"RSA","k-mod":"%s","k-exp":"%s"},"tee-evidence":"{\"gen\":\"milan\",\"report\":\"%X\",\"cert_chain\":\"[]\"}"}`,
		mod, exp, ev.Report)
}

func (c *cClient) attest() error {
	body := c.request()
	if len(body)+1 > 0x1000 {
		return errOverrun
	}
	if c.attestBody != nil {
		body = c.attestBody(body)
	}
	answer, err := c.perform("POST", c.base+"/kbs/v0/attest", body, 256, 200)
	if err == nil && answer != "" {
		err = errors.New("ATTESTATION ERROR: " + answer)
	}
	return err
}

func (c *cClient) key() (string, error) {
	answer, err := c.perform("GET", c.base+"/kbs/v0/key/"+c.keyID, "", 100, 4096)
	if err != nil {
		return "", err
	}
	if len(answer) < 2 {
		return "", fmt.Errorf("answer %q", answer)
	}
	sealed, err := hex.DecodeString(answer[1 : len(answer)-1]) // whatever these bytes are
	if err != nil {
		return "", fmt.Errorf("answer %q: %w", answer, err)
	}
	//lint:ignore SA1019 as the client does
	plain, err := rsa.DecryptPKCS1v15(nil, c.private, sealed)
	return string(plain), err
}

func (c *cClient) run() (string, error) {
	if err := c.auth(); err != nil {
		return "", err
	}
	if err := c.attest(); err != nil {
		return "", err
	}
	return c.key()
}
