package cgroup

import "io/fs"

// CPUsOn is CPUs on a machine whose root directory is root.
func CPUsOn(root fs.FS, processors int) float64 { return system{root}.cpus(processors) }

// OOMKillsOn is OOMKills on a machine whose root directory is root.
func OOMKillsOn(root fs.FS) (uint64, error) { return system{root}.oomKills() }
