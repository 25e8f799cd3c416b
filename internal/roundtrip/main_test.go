package roundtrip_test

import (
	"os"
	"testing"

	"github.com/org/watt/internal/leaktest"
)

// TestMain fails the package if a test leaves a goroutine behind.
func TestMain(m *testing.M) { os.Exit(leaktest.Run(m)) }
