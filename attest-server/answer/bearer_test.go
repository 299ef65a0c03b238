package answer

import (
	"net/http"
	"testing"
)

// TestOneBearer: of two tokens neither is taken, whichever a proxy looked at.
func TestOneBearer(t *testing.T) {
	for want, headers := range map[string][][]string{
		"a": {{"Bearer a"}, {"bearer a"}},
		"":  {nil, {"Bearer a", "Bearer b"}, {"Bearer a", "Bearer a"}, {"Basic a"}, {"Bearer"}, {""}, {"Basic x", "Bearer a"}},
	} {
		for _, h := range headers {
			b := Bearer(&http.Request{Header: http.Header{"Authorization": h}})
			if string(b.Reveal()) != want {
				t.Errorf("%q: a token of %d bytes, expected %q", h, b.Len(), want)
			}
		}
	}
}
