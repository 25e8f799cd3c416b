// Package cgroup tells how much of the machine this process may use: what its container allows, if it
// lives in one, and else what the system does.
//
// Both versions of Linux control groups are understood, alone and side by side (hybrid). The limits of
// all parents count as far as they can be seen: a container sees its own cgroup and what is in it, but
// rarely its parents. What cannot be read does not limit, so elsewhere than on Linux nothing does.
//
// The functions read files each time, a dozen or so, keep nothing, and are safe for concurrent use.
package cgroup

import (
	"io/fs"
	"os"
	"runtime"
	"strconv"
)

// CPUs returns how many processors' time this process may use: the least of the quotas of its cgroup
// and all parents, and [runtime.NumCPU], which knows the affinity mask that the process was started with.
// It is above 0 and may be a fraction: 0.5 is half the time of one processor.
func CPUs() float64 { return machine().cpus(runtime.NumCPU()) }

// Memory returns how many bytes this process and all others of its cgroup may use together: the least
// of the limits of the cgroup and all parents. It reports false if there is no limit.
func Memory() (limit uint64, ok bool) { return machine().memory() }

// OOMKills returns how many processes of the cgroup of pid the kernel has killed because memory ran out,
// whoever's limit that was, since the cgroup was made. 0 is this process.
//
// The counter belongs to the cgroup. To learn whether a child was killed, compare what it was before
// the child started with what it is after the end, by the pid of a process that still lives in the same
// cgroup: the dead have left theirs. It returns an error where the system does not count, as in the root
// cgroup of version 2 and before Linux 4.13.
func OOMKills(pid int) (uint64, error) {
	if pid == 0 {
		return machine().oomKills("self")
	}
	return machine().oomKills(strconv.Itoa(pid))
}

// system is a machine as seen through its root directory.
type system struct{ root fs.FS }

func machine() system { return system{os.DirFS("/")} }
