package imagetest

import (
	"bytes"
	"io"
	"testing"

	"github.com/containers/ocicrypt"
	encconfig "github.com/containers/ocicrypt/config"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Encrypt replaces m's layers by ones that only the key can open.
func (m *Image) Encrypt(t testing.TB, pub string) {
	t.Helper()
	c, err := encconfig.EncryptWithJwe([][]byte{Read(t, pub)})
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Layers {
		l := &m.Layers[i]
		r, finish, err := ocicrypt.EncryptLayer(c.EncryptConfig, bytes.NewReader(l.Blob), imgspec.Descriptor{MediaType: l.MediaType, Digest: digest.FromBytes(l.Blob)})
		if err != nil {
			t.Fatal(err)
		}
		if l.Blob, err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		if l.Annotations, err = finish(); err != nil {
			t.Fatal(err)
		}
		l.MediaType += "+encrypted"
	}
}
