package process

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc, on all that Go runs on (sysconf _SC_CLK_TCK).
const tick = time.Second / 100

// Usage returns the processor time that a process has used so far, and the bytes that it has in memory; 0 where
// that is not known. It does not wait for the process.
func Usage(pid int) (cpu time.Duration, memory int64) {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0
	}
	// The name, second, is in brackets and may be anything; utime, stime and rss are the 14th, 15th and 24th.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 22 {
		return 0, 0
	}
	number := func(i int) int64 {
		n, _ := strconv.ParseInt(string(fields[i-3]), 10, 64)
		return max(0, n)
	}
	return time.Duration(number(14)+number(15)) * tick, number(24) * int64(os.Getpagesize())
}
