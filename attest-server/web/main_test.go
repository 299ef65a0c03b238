package web

import (
	"os"
	"testing"

	"github.com/ccrun/ccrun/attest-server/servertest"
)

func TestMain(m *testing.M) { os.Exit(servertest.Run(m)) }
