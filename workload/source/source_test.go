package source

import "testing"

// What `podman build --format docker` and docker write of a HEALTHCHECK.
func TestHealthcheckIn(t *testing.T) {
	for config, want := range map[string]bool{
		`{"config":{"Healthcheck":{"Test":["CMD-SHELL","curl -f localhost"],"Interval":5}}}`: true,
		`{"config":{"Healthcheck":{"Test":["NONE"]}}}`:                                       false,
		`{"config":{"Healthcheck":{}}}`:                                                      false,
		`{"config":{"Healthcheck":"odd"}}`:                                                   false,
		`{"config":{}}`:                                                                      false, `{}`: false, ``: false,
	} {
		if got := healthcheckIn([]byte(config)); got != want {
			t.Errorf("%s: %v", config, got)
		}
	}
}
