package recipient

import (
	"crypto/rsa"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
)

// MaxPassphrase is what RSA-2048 with PKCS #1 v1.5 can carry.
const MaxPassphrase = 245

// Legacy takes a JSON string with the hex of RSA PKCS #1 v1.5, and nothing
// after it: the old C client cuts off the first and the last byte.
type Legacy struct{ Public *rsa.PublicKey }

// Seal implements Recipient.
func (e Legacy) Seal(rand io.Reader, item Item) ([]byte, error) {
	//lint:ignore SA1019 the old client knows nothing else, and decrypts once with a key made for it
	b, err := rsa.EncryptPKCS1v15(rand, e.Public, item.Plain)
	if err != nil {
		return nil, fmt.Errorf("encrypting the passphrase: %w", err)
	}
	return json.Marshal(hex.EncodeToString(b))
}
