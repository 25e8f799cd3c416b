//go:build !linux

package process

import "time"

// Usage returns 0: this system does not tell without more.
func Usage(int) (cpu time.Duration, memory int64) { return 0, 0 }
