package command

import (
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-sev-guest/verify/trust"
)

// TestEndorsementsOnline: off by default, nothing is asked for; on, the
// mirror is asked for CRLs in the background, and a mirror that is down or
// lies hinders nobody.
func TestEndorsementsOnline(t *testing.T) {
	var asked atomic.Int32
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, "no CRL")
	}))
	defer srv.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	config := func(text string) string {
		path := filepath.Join(t.TempDir(), "c.toml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mirrors := "kds_url = \"" + srv.URL + "\"\npcs_url = \"" + srv.URL + "\"\nmirror_ca = \"" + ca + "\"\n"
	dir, token := initDir(t)
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config", "--config", config(mirrors)); err == nil {
		t.Error("mirrors without endorsements_online were taken")
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config", "--config", config("endorsements_online = true\nkds_url = \"kds.example.com\"")); err == nil {
		t.Error("a mirror without scheme was taken")
	}
	if _, _, err := run(t.Context(), "serve", "--data", dir, "--check-config", "--endorsements", filepath.Join(dir, "none")); err == nil {
		t.Error("a missing endorsements directory was taken")
	}
	url, stop := serve(t, "--data", dir, "--config", config("endorsements_online = true\n"+mirrors))
	for deadline := time.Now().Add(2 * time.Minute); asked.Load() < 3 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	if asked.Load() < 3 {
		t.Errorf("mirror asked %d times, expected once for each product line", asked.Load())
	}
	if _, err := admin(t, dir, url, token).Register(t.Context(), registration("w1", 1)); err != nil {
		t.Errorf("with a mirror that lies: %v", err)
	}
	log, err := stop()
	if err != nil || !strings.Contains(log, "renewing endorsements") {
		t.Errorf("%v\n%s", err, log)
	}
	asked.Store(0)
	_, stop = serve(t, "--data", dir)
	if _, err := stop(); err != nil || asked.Load() != 0 {
		t.Errorf("fetched although off: %d, %v", asked.Load(), err)
	}
}

// TestEndorsementsShown: what lies in the directory is listed, what is no
// Endorsement does no harm, and metrics name what is renewed alone.
func TestEndorsementsShown(t *testing.T) {
	dir, _ := initDir(t)
	e := t.TempDir()
	for name, b := range map[string][]byte{"chain.pem": trust.AskArkMilanVcekBytes, "README": []byte("hello")} {
		if err := os.WriteFile(filepath.Join(e, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openSupply(Config{Endorsements: e, Data: dir})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.List()); n != 2 {
		t.Errorf("%d listed, expected ASK and ARK", n)
	}
	if l := endorsementExpiries(s); len(l) != 0 {
		t.Errorf("%v in metrics, expected CRLs and collateral alone", l)
	}
}
