//go:build !unix

package admin

import "time"

// processorTime is not known here: processors count as idle.
func processorTime() time.Duration { return 0 }
