package source

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containers/image/v5/pkg/compression"
	"github.com/containers/ocicrypt"
	encconfig "github.com/containers/ocicrypt/config"
	encutils "github.com/containers/ocicrypt/utils"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// maxKeyFile bounds a key file, which may be a GPG key ring.
const maxKeyFile = 16 << 20

// DecryptionKey opens the layers of a source that is encrypted as
// containers/ocicrypt does: a PEM, DER or JWK private key, with Passphrase if
// it has one; a certificate that belongs to one of these (PKCS #7); a GPG
// secret key ring; or, instead of Path, the name of a key provider in
// OCICRYPT_KEYPROVIDER_CONFIG.
type DecryptionKey struct {
	Path       string
	Passphrase secret.Bytes
	Provider   string
}

// DecryptionKeys are what LoadDecryptionKeys has read.
type DecryptionKeys struct{ config encconfig.DecryptConfig }

// LoadDecryptionKeys reads the keys. A file that holds none is an error.
func LoadDecryptionKeys(keys []DecryptionKey) (*DecryptionKeys, error) {
	var all []encconfig.CryptoConfig
	for _, k := range keys {
		c, err := k.load()
		if err != nil {
			return nil, fmt.Errorf("reading decryption key %s%s: %w", k.Path, k.Provider, err)
		}
		all = append(all, c)
	}
	c := encconfig.CombineCryptoConfigs(all)
	if c.DecryptConfig == nil {
		return nil, errors.New("no decryption key")
	}
	return &DecryptionKeys{*c.DecryptConfig}, nil
}

func (k *DecryptionKey) load() (none encconfig.CryptoConfig, err error) {
	if k.Provider != "" {
		return encconfig.DecryptWithKeyProvider([][]byte{[]byte(k.Provider)})
	}
	b, err := bounded.File(k.Path, maxKeyFile)
	if err != nil {
		return none, err
	}
	pass := [][]byte{k.Passphrase.Reveal()}
	private, err := encutils.IsPrivateKey(b, pass[0])
	switch {
	case encutils.IsPasswordError(err):
		return none, hint.With(err, "give its passphrase: --decryption-key %s:file=PASSPHRASE_FILE", k.Path)
	case private:
		return encconfig.DecryptWithPrivKeys([][]byte{b}, pass)
	case encutils.IsCertificate(b):
		return encconfig.DecryptWithX509s([][]byte{b})
	case encutils.IsGPGPrivateKeyRing(b):
		return encconfig.DecryptWithGpgPrivKeys([][]byte{b}, pass)
	}
	return none, errors.New("neither a private key, a certificate nor a GPG secret key ring")
}

// encrypted says whether the layer's blob is.
func (l *Layer) encrypted() bool { return strings.HasSuffix(l.info.MediaType, "+encrypted") }

// needKeys refuses a layer that no key was given for.
func (l *Layer) needKeys() error {
	if !l.encrypted() || l.keys != nil {
		return nil
	}
	return hint.With(l.Wrap(fmt.Errorf("is encrypted (%s)", l.info.MediaType)), "give its owner's key with --decryption-key FILE")
}

// decrypt undoes ocicrypt. What comes out is authenticated by its HMAC at the
// end, and, decompressed, by the layer's diff id.
func (l *Layer) decrypt(blob io.Reader) (io.Reader, error) {
	if !l.encrypted() {
		return blob, nil
	}
	if err := l.needKeys(); err != nil {
		return nil, err
	}
	d := imgspec.Descriptor{MediaType: l.info.MediaType, Digest: l.info.Digest, Size: l.info.Size, Annotations: l.info.Annotations}
	plain, _, err := ocicrypt.DecryptLayer(&l.keys.config, blob, d, false)
	if err != nil {
		return nil, hint.With(fmt.Errorf("decrypting: %w", err), "give the key that it was encrypted for with --decryption-key")
	}
	return plain, nil
}

// stored takes a stream for its own decompression.
func stored(r io.Reader) (io.ReadCloser, error) { return io.NopCloser(r), nil }

var _ compression.DecompressorFunc = stored
