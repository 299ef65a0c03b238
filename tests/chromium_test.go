package tests

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/websocket"
)

// chromium is a headless browser, driven over the DevTools protocol.
type chromium struct {
	t     testing.TB
	conn  *websocket.Conn
	calls int
	// complaints are what the browser's console says: refusals by the policy,
	// failed requests. requests are the addresses it asked.
	complaints, requests []string
	loaded               int // pages
	end                  func()
}

// stuck is what a browser panics with that does not answer. Chromium does so
// once in a while, also on an idle machine, and whatever it is asked.
type stuck struct{ error }

// withChromium browses with a Chromium that trusts servers with one of the
// keys (base64 of the SHA-256 of the SPKI) and no others. If the browser is
// stuck, it browses again from the start, with another.
func withChromium(t testing.TB, browse func(*chromium), keys ...string) {
	t.Helper()
	for range 3 {
		err := tryChromium(t, browse, keys)
		if err == nil {
			return
		}
		t.Logf("chromium is stuck: %v", err)
	}
	t.Fatal("three browsers were stuck")
}

func tryChromium(t testing.TB, browse func(*chromium), keys []string) (err error) {
	t.Helper()
	defer func() {
		switch r := recover().(type) {
		case nil:
		case stuck:
			err = r.error
		default:
			panic(r)
		}
	}()
	c := newChromium(t, keys)
	defer c.end()
	browse(c)
	return nil
}

func newChromium(t testing.TB, keys []string) *chromium {
	t.Helper()
	path, err := exec.LookPath("chromium")
	need(t, err)
	profile := t.TempDir()
	cmd := exec.Command(path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
		"--hide-scrollbars", "--user-data-dir="+profile, "--remote-debugging-port=0", "--remote-allow-origins=*",
		"--ignore-certificate-errors-spki-list="+strings.Join(keys, ","), "about:blank")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := sync.OnceFunc(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("chromium: %s", log.String())
		}
	})
	t.Cleanup(end)
	c := &chromium{t: t, end: end}
	c.connect(filepath.Join(profile, "DevToolsActivePort"))
	for _, domain := range []string{"Page", "Network", "Log", "Runtime"} {
		c.call(domain+".enable", nil)
	}
	return c
}

// connect opens a page; the browser writes its port to a file.
func (c *chromium) connect(portFile string) {
	c.t.Helper()
	var port []byte
	eventually(func() bool {
		b, _ := os.ReadFile(portFile)
		var whole bool
		port, _, whole = bytes.Cut(b, []byte("\n"))
		return whole
	})
	ctx, cancel := context.WithTimeout(c.t.Context(), browserPatience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://127.0.0.1:"+string(port)+"/json/new?about:blank", nil)
	if err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		panic(stuck{fmt.Errorf("starting: %w", err)})
	}
	defer resp.Body.Close()
	var page struct{ WebSocketDebuggerURL string }
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		panic(stuck{fmt.Errorf("opening a page: %w", err)})
	}
	socket, err := websocket.NewConfig(page.WebSocketDebuggerURL, "http://127.0.0.1")
	if err != nil {
		c.t.Fatal(err)
	}
	if c.conn, err = socket.DialContext(ctx); err != nil {
		panic(stuck{fmt.Errorf("connecting: %w", err)})
	}
	c.conn.MaxPayloadBytes = 64 << 20
	c.t.Cleanup(func() { c.conn.Close() })
}

// browserPatience is how long a browser may be silent: less than patience, as
// there are three of them.
const browserPatience = patience / 4

type devToolsMessage struct {
	ID     int
	Method string
	Params json.RawMessage
	Result json.RawMessage
	Error  *struct{ Message string }
}

// receive takes one message and notes what it tells.
func (c *chromium) receive() devToolsMessage {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(browserPatience))
	var m devToolsMessage
	if err := websocket.JSON.Receive(c.conn, &m); err != nil {
		panic(stuck{err})
	}
	var p struct {
		Entry   struct{ Level, Source, Text, URL string }
		Request struct{ URL string }
	}
	_ = json.Unmarshal(m.Params, &p) // other events have other members
	switch m.Method {
	case "Log.entryAdded":
		c.complaints = append(c.complaints, fmt.Sprint(p.Entry))
	case "Network.requestWillBeSent":
		c.requests = append(c.requests, p.Request.URL)
	case "Page.loadEventFired":
		c.loaded++
	}
	return m
}

func (c *chromium) call(method string, params any) json.RawMessage {
	c.t.Helper()
	c.calls++
	id := c.calls
	if params == nil {
		params = struct{}{}
	}
	if err := websocket.JSON.Send(c.conn, map[string]any{"id": id, "method": method, "params": params}); err != nil {
		c.t.Fatal(err)
	}
	for {
		if m := c.receive(); m.ID == id {
			if m.Error != nil {
				c.t.Fatalf("%s: %s", method, m.Error.Message)
			}
			return m.Result
		}
	}
}

// page does something that loads a page, and waits for it.
func (c *chromium) page(do func()) {
	c.t.Helper()
	before := c.loaded
	do()
	for c.loaded == before {
		c.receive()
	}
}

func (c *chromium) open(url string) {
	c.t.Helper()
	c.page(func() { c.call("Page.navigate", map[string]any{"url": url}) })
}

// eval is the value of a JavaScript expression. The page's policy forbids
// scripts of its own, not the debugger's.
func (c *chromium) eval(expression string) string {
	c.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails *struct{ Text string }
	}
	b := c.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true})
	if err := json.Unmarshal(b, &r); err != nil || r.ExceptionDetails != nil {
		c.t.Fatalf("%s: %v %s", expression, err, b)
	}
	return fmt.Sprint(r.Result.Value)
}

// press is a key press, as a keyboard sends it.
func (c *chromium) press(key string, code int, text string) {
	c.t.Helper()
	down := map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}
	c.call("Input.dispatchKeyEvent", down)
	c.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code})
}

func (c *chromium) tab()   { c.t.Helper(); c.press("Tab", 9, "") }
func (c *chromium) enter() { c.t.Helper(); c.press("Enter", 13, "\r") }

// view sets the window's width and the colour scheme.
func (c *chromium) view(width int, scheme string) {
	c.t.Helper()
	c.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false})
	c.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// screenshot is the whole page as PNG.
func (c *chromium) screenshot() []byte {
	c.t.Helper()
	var r struct{ Data string }
	if err := json.Unmarshal(c.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}), &r); err != nil {
		c.t.Fatal(err)
	}
	b, err := base64.StdEncoding.DecodeString(r.Data)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}
