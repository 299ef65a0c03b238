package web

import (
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestContrast computes WCAG 2.2 contrast for every pair of colours in use,
// in both colour schemes: 4.5 for text, 3 for graphics (1.4.3, 1.4.11).
func TestContrast(t *testing.T) {
	b, err := files.ReadFile("static/style.css")
	if err != nil {
		t.Fatal(err)
	}
	light, dark, ok := strings.Cut(string(b), "@media (prefers-color-scheme: dark)")
	if !ok {
		t.Fatal("no dark scheme")
	}
	dark, _, _ = strings.Cut(dark, "* {")
	for name, css := range map[string]string{"light": light, "dark": dark} {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--([a-z0-9-]+): #([0-9a-f]{6})`).FindAllStringSubmatch(css, -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		check := func(fg, bg string, least float64) {
			t.Helper()
			f, okF := colours[fg]
			g, okG := colours[bg]
			if c := (max(f, g) + .05) / (min(f, g) + .05); !okF || !okG || c < least {
				t.Errorf("%s: %s on %s has contrast %.2f, expected %.1f", name, fg, bg, c, least)
			}
		}
		for _, bg := range []string{"bg", "panel"} {
			for _, fg := range []string{"text", "muted", "link"} {
				check(fg, bg, 4.5)
			}
			check("line", bg, 3)
		}
		check("bg", "link", 4.5) // the main button
		for _, state := range []string{"pass", "fail", "warn"} {
			check(state, state+"-bg", 4.5)
			check(state, "bg", 3)
		}
		for i := range maxSeries {
			check("c"+strconv.Itoa(i), "bg", 3)
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	n, err := strconv.ParseUint(hex, 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	part := func(shift int) float64 {
		c := float64(n>>shift&0xff) / 255
		if c <= .04045 {
			return c / 12.92
		}
		return math.Pow((c+.055)/1.055, 2.4)
	}
	return .2126*part(16) + .7152*part(8) + .0722*part(0)
}
