package ext4read

import (
	"os"
	"testing"

	"github.com/ccrun/ccrun/workload/rootfs/rootfstest"
)

func TestMain(m *testing.M) {
	rootfstest.InMemory()
	os.Exit(m.Run())
}
