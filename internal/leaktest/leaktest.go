// Package leaktest is for the TestMain of packages in which everything that was started has to end.
package leaktest

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// patience is how long goroutines may take to end after the last test.
const patience = 5 * time.Second

// Run runs the tests and returns the exit code: 1, and the stacks on stderr, if they leave a goroutine behind. The
// fuzzer does, for its workers, and may.
func Run(m *testing.M) (code int) {
	before := runtime.NumGoroutine()
	code = m.Run()
	fuzzing := flag.Lookup("test.fuzz").Value.String() != ""
	deadline := time.Now().Add(patience)
	for ; code == 0 && !fuzzing && runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			fmt.Fprintln(os.Stderr, "goroutines left behind:")
			_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
			code = 1
		}
	}
	return code
}
