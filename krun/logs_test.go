package krun

import (
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/ccrun/ccrun/luks"
)

// TestSealedLogsIdentity: an identity says who reads encrypted logs and who
// writes them, or has none.
func TestSealedLogsIdentity(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	recipient := id.Recipient().String()
	sealed := func(t *testing.T) *Identity {
		i := goodIdentity(t)
		key, err := luks.NewVolumeKey(strings.NewReader(strings.Repeat("k", 1000)), i.Disk.Geometry)
		if err != nil {
			t.Fatal(err)
		}
		i.Policy.Logs = LogsEncrypted
		if i.Logs, err = SealLogs([]string{recipient}, key); err != nil {
			t.Fatal(err)
		}
		return i
	}
	b, err := sealed(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := DecodeIdentity(b); err != nil || got.Logs.Recipients[0] != recipient {
		t.Errorf("%s: %v", b, err)
	}
	for name, spoil := range map[string]func(*Identity){
		"nobody reads":    func(i *Identity) { i.Logs = nil },
		"no recipients":   func(i *Identity) { i.Logs.Recipients = nil },
		"not a recipient": func(i *Identity) { i.Logs.Recipients = []string{"age1x"} },
		"twice":           func(i *Identity) { i.Logs.Recipients = []string{recipient, recipient} },
		"nobody signs":    func(i *Identity) { i.Logs.SigningKey = "" },
		"short key":       func(i *Identity) { i.Logs.SigningKey = i.Logs.SigningKey[2:] },
		"upper case":      func(i *Identity) { i.Logs.SigningKey = strings.ToUpper(i.Logs.SigningKey[:63]) + "A" },
		"not encrypted":   func(i *Identity) { i.Policy.Logs = LogsHost },
		"nothing to read": func(i *Identity) { i.Policy.Logs = LogsNone },
		"of an old version": func(i *Identity) {
			i.Version, i.Scratch, i.Disk.ImageBytes, i.Disk.Filesystem = 1, Scratch{}, 0, "ext4"
		},
	} {
		i := sealed(t)
		spoil(i)
		if err := i.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := SealLogs([]string{recipient}, &luks.VolumeKey{}); err == nil {
		t.Error("logs signed with a key that is nobody's")
	}
	if l, err := SealLogs(nil, nil); l != nil || err != nil {
		t.Errorf("no recipients: %v, %v", l, err)
	}
}

func TestCheckLogs(t *testing.T) {
	id, _ := age.GenerateX25519Identity()
	one := []string{id.Recipient().String()}
	for _, c := range []struct {
		policy string
		to     []string
		ok     bool
	}{
		{LogsHost, nil, true}, {LogsNone, nil, true}, {LogsEncrypted, one, true},
		{LogsEncrypted, nil, false}, {LogsHost, one, false}, {LogsNone, one, false}, {"", nil, false}, {"", one, false}, {"encrypt", one, false},
	} {
		if err := CheckLogs(c.policy, c.to); (err == nil) != c.ok {
			t.Errorf("%q to %d: %v", c.policy, len(c.to), err)
		}
	}
}
