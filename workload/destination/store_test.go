package destination

import (
	"fmt"
	"os"
	"testing"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
)

// TestOverlayIsAdopted: into overlay's layers are written directly, into those
// of other drivers by the library.
func TestOverlayIsAdopted(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("containers/storage needs root or a user namespace")
	}
	for driver, want := range map[string]bool{"overlay": true, "vfs": false} {
		ref, err := alltransports.ParseImageName(fmt.Sprintf("containers-storage:[%s@%s+%s]localhost/x:1", driver, t.TempDir(), t.TempDir()))
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal(err)
			}
			t.Skipf("no %s on this file system: %v", driver, err)
		}
		store := ref.Transport().(istorage.StoreTransport).GetStoreIfSet()
		if got := adopts(store); got != want {
			t.Errorf("%s: written into directly: %t", driver, got)
		}
		_, _ = store.Shutdown(true)
	}
}
