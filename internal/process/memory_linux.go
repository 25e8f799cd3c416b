package process

import (
	"bytes"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// forThreads is kept free for some four threads that begin later: with cgo each reserves a stack, mostly of 8 MiB.
const forThreads = 32 << 20

// CollectBelowLimit has the garbage collector of this process try to keep it below its limit of memory, which counts also what
// is only reserved, and of which the collector knows nothing. An eighth is kept free for what is allocated while it works,
// and at least a quarter is left to what it knows.
func CollectBelowLimit() {
	var data unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_DATA, &data); err != nil || data.Cur == unix.RLIM_INFINITY {
		return
	}
	var of runtime.MemStats
	runtime.ReadMemStats(&of)
	limit := int64(data.Cur)
	most := max(limit-(dataSize()-int64(of.Sys))-forThreads-limit/8, limit/4)
	debug.SetMemoryLimit(min(most, debug.SetMemoryLimit(-1)))
}

// dataSize returns how many bytes of this process RLIMIT_DATA counts, or 0 if that is not known.
func dataSize() int64 {
	statm, err := os.ReadFile("/proc/self/statm")
	fields := bytes.Fields(statm)
	if err != nil || len(fields) < 6 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(fields[5]), 10, 64)
	return pages * int64(os.Getpagesize())
}
