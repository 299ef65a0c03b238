package command

import (
	"context"
	"crypto/hpke"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// attempt is one guest's session, with what it takes to play it again.
type attempt struct {
	bearer, attest   string // the token, and the body of the request
	granted, fetched bool   // acknowledged
}

// ask sends one request. With status 0 no answer came, and code says why.
func (k *killed) ask(method, url, bearer, body string, out any) (status int, code string) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		k.Error(err)
		return 0, ""
	}
	req.Header.Set("Content-Type", "application/json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	if strings.HasSuffix(url, "/attest") {
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			WroteRequest: func(httptrace.WroteRequestInfo) { k.happened(asked) },
		}))
	}
	c := http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: tlsRoots(k.roots), DisableKeepAlives: true}}
	resp, err := c.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	if resp.StatusCode == http.StatusOK {
		if out != nil && json.Unmarshal(b, out) != nil {
			k.Errorf("%s %s: %s", method, url, b)
		}
		return resp.StatusCode, ""
	}
	var p kbs.Problem
	if err := kbs.UnmarshalStrict(b, &p); err != nil || p.Code == "" {
		k.Errorf("%s %s: %d %s", method, url, resp.StatusCode, b)
	}
	return resp.StatusCode, p.Code
}

// attend is one guest's handshake, as far as the server lives.
func (k *killed) attend(url string) {
	g := k.guests.request()
	var auth kbs.AuthAnswer
	in, err := json.Marshal(kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: g.WorkloadID})
	if err != nil {
		k.Error(err)
		return
	}
	if status, _ := k.ask(http.MethodPost, url+"/v1/auth", "", string(in), &auth); status != http.StatusOK {
		return
	}
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		k.Error(err)
		return
	}
	runtime := kbs.RuntimeData{Nonce: auth.Nonce, TEEKey: kbs.TEEKey{KEM: key.KEM().ID(), Public: key.PublicKey().Bytes()},
		IdentityDigest: g.IdentityDigest, FooterDigest: g.FooterDigest}
	rd, err := kbs.Binding(g.WorkloadID, runtime)
	if err != nil {
		k.Error(err)
		return
	}
	evidence, err := g.Attest(context.Background(), rd)
	if err == nil {
		in, err = json.Marshal(kbs.AttestRequest{RuntimeData: runtime, Evidence: evidence})
	}
	if err != nil {
		k.Error(err)
		return
	}
	a := &attempt{bearer: auth.Session, attest: string(in)}
	k.mu.Lock()
	k.attempts = append(k.attempts, a)
	k.mu.Unlock()
	status, code := k.ask(http.MethodPost, url+"/v1/attest", a.bearer, a.attest, nil)
	a.granted = status == http.StatusOK
	if status > 0 && !a.granted {
		k.Errorf("attest: %d %s", status, code)
	}
	if a.granted {
		status, code = k.ask(http.MethodGet, url+"/v1/workloads/"+g.WorkloadID+"/key", a.bearer, "", nil)
		if a.fetched = status == http.StatusOK; status > 0 && !a.fetched {
			k.Errorf("key: %d %s", status, code)
		}
	}
	if a.fetched {
		k.happened(fetched)
	}
}

// replay plays every session of the round before again, twice.
func (k *killed) replay(url string) {
	for _, a := range k.attempts {
		for range 2 {
			status, code := k.ask(http.MethodPost, url+"/v1/attest", a.bearer, a.attest, nil)
			switch {
			case status == http.StatusOK && !a.granted:
				a.granted = true // it was in flight: this is the first that anybody heard of it
			case code != kbs.CodeSessionExpired:
				k.Errorf("attest with a nonce used before (granted: %v): %d %s", a.granted, status, code)
			}
			k.count(replayed)
		}
		// Shared sessions outlive a server, and so does one whose nonce was used
		// and that nobody has judged.
		status, code := k.ask(http.MethodGet, url+"/v1/workloads/"+loadWorkload+"/key", a.bearer, "", nil)
		unjudged := k.owners.database != "" && !a.granted && code == kbs.CodeAttestationDenied
		if status != http.StatusOK && code != kbs.CodeSessionExpired && !unjudged {
			k.Errorf("key of a session of before: %d %s", status, code)
		}
	}
	k.attempts = nil
}
