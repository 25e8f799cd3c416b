// Package process starts this program again, and tells how that ended.
package process

import (
	"io"
	"os"
	"strings"
)

// Spec says what to start.
type Spec struct {
	Args           []string
	Env            []string
	Control        *os.File // becomes descriptor 3
	Stdout, Stderr io.Writer
}

// Args returns args without the flags of a test binary.
func Args(args []string) []string {
	var kept []string
	for _, a := range args {
		if !strings.HasPrefix(strings.TrimLeft(a, "-"), "test.") || !strings.HasPrefix(a, "-") {
			kept = append(kept, a)
		}
	}
	return kept
}
