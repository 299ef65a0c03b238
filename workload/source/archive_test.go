package source

import "testing"

func TestArchiveChoosesImage(t *testing.T) {
	for _, c := range []struct {
		image string
		ok    bool
	}{{"", false}, {"@0", true}, {"@2", false}, {"@-1", false}, {"localhost/a:1", true}, {"localhost/b", true}, {"localhost/c:1", false}} {
		items := []dockerItem{{RepoTags: []string{"localhost/a:1"}}, {RepoTags: []string{"localhost/b:latest"}}}
		if _, err := chooseItem(items, c.image); (err == nil) != c.ok {
			t.Errorf("%q: error %v", c.image, err)
		}
	}
}
