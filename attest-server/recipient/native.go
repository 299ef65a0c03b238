package recipient

import (
	"crypto/hpke"
	"encoding/json"
	"io"
	"slices"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// acceptedKEMs are those that resist a quantum computer: what is released
// here may be recorded today and opened in twenty years.
var acceptedKEMs = []hpke.KEM{hpke.MLKEM768X25519(), hpke.MLKEM768P256(), hpke.MLKEM1024P384()}

// Native takes a kbs.Sealed: HPKE, with the session's report data and the
// item's name in its info.
type Native struct{ Key hpke.PublicKey }

// ParseTEEKey is nil for a key that is not accepted.
func ParseTEEKey(k kbs.TEEKey) Recipient {
	i := slices.IndexFunc(acceptedKEMs, func(x hpke.KEM) bool { return x.ID() == k.KEM })
	if i < 0 {
		return nil
	}
	public, err := acceptedKEMs[i].NewPublicKey(k.Public)
	if err != nil {
		return nil
	}
	return Native{public}
}

// Seal implements Recipient. HPKE draws its own random bytes.
func (n Native) Seal(_ io.Reader, item Item) ([]byte, error) {
	enc, sender, err := hpke.NewSender(n.Key, hpke.HKDFSHA256(), hpke.AES256GCM(), kbs.ReleaseInfo(item.ReportData, item.Name))
	if err != nil {
		return nil, err
	}
	sealed, err := sender.Seal(nil, item.Plain)
	if err != nil {
		return nil, err
	}
	return json.Marshal(kbs.Sealed{Enc: enc, Ciphertext: sealed, ServerTime: item.At})
}
