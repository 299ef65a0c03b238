package registry

import "testing"

func TestParseUploadRange(t *testing.T) {
	for s, want := range map[string]int64{
		"0-0": 0, "0-1": 2, "0-1048575": 1 << 20, "bytes=0-9": 10, "0-9223372036854775806": 1<<63 - 1,
		"": -1, "-": -1, "0-": -1, "-5": -1, "1-5": -1, "0--5": -1, "0-+5": -1, "0-5/9": -1, "0-9223372036854775807": -1, "0-99999999999999999999": -1, "a-b": -1,
	} {
		got, ok := parseUploadRange(s)
		if ok != (want >= 0) || ok && got != want {
			t.Errorf("%q: %d %t, expected %d", s, got, ok, want)
		}
	}
}
