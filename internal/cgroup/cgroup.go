// Package cgroup tells how many processors this process may use: what its container allows, if it lives in one, and
// else what the system does. And it tells whether the container's memory has run out.
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
)

// CPUs returns how many processors' time this process may use: the least of the quotas of its cgroup
// and all parents, and [runtime.NumCPU], which knows the affinity mask that the process was started with.
// It is above 0 and may be a fraction: 0.5 is half the time of one processor.
func CPUs() float64 { return machine().cpus(runtime.NumCPU()) }

// OOMKills returns how many processes of this process's cgroup the kernel has killed because memory ran out,
// whoever's limit that was, since the cgroup was made.
//
// To learn whether a child was killed, compare what it was before the child started with what it is after the end: the
// dead have left their cgroup. It returns an error where the system does not count, as in the root cgroup of version 2
// and before Linux 4.13.
func OOMKills() (uint64, error) { return machine().oomKills() }

// system is a machine as seen through its root directory.
type system struct{ root fs.FS }

func machine() system { return system{os.DirFS("/")} }
