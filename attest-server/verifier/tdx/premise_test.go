package tdx

import (
	"testing"

	"github.com/google/go-tdx-guest/abi"
)

// The premise of our own parser: when this test fails, it can go.

func TestPremiseTDXQuotePanics(t *testing.T) {
	quote := make([]byte, 2000)
	copy(quote, []byte{4, 0, 2, 0, 0x81})
	defer func() {
		if recover() == nil {
			t.Error("go-tdx-guest's QuoteToProto no longer panics on a quote without signed data: use it")
		}
	}()
	_, _ = abi.QuoteToProto(quote)
}
