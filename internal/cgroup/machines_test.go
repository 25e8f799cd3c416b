package cgroup_test

import "testing/fstest"

// files is a machine: what its files contain.
type files map[string]string

func (f files) root() fstest.MapFS {
	root := make(fstest.MapFS)
	for name, text := range f {
		root[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return root
}

const (
	selfCgroup = "proc/self/cgroup"
	selfMounts = "proc/self/mountinfo"

	otherMounts = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard\n"
	unified     = otherMounts + "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate\n"
	separate    = otherMounts +
		"31 23 0:28 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" +
		"32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
		"33 31 0:30 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset\n" +
		"34 31 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
)

// service is a machine with version 2 only, and this process two levels deep.
func service() files {
	return files{
		selfCgroup: "0::/app.slice/web.service\n",
		selfMounts: unified,

		"sys/fs/cgroup/app.slice/cpu.max":                   "250000 100000\n",
		"sys/fs/cgroup/app.slice/web.service/cpu.max":       "max 100000\n",
		"sys/fs/cgroup/app.slice/web.service/memory.events": "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n",
	}
}

// pod is a container on a machine with version 1, whose host shows it nothing but itself.
func pod() files {
	return files{
		selfCgroup: "11:cpuset:/kubepods/p1/c1\n4:cpu,cpuacct:/kubepods/p1/c1\n3:memory:/kubepods/p1/c1\n1:name=systemd:/kubepods/p1/c1\n",
		selfMounts: otherMounts +
			"32 31 0:29 /kubepods/p1/c1 /sys/fs/cgroup/cpu,cpuacct ro,relatime - cgroup cgroup rw,cpu,cpuacct\n" +
			"34 31 0:31 /kubepods/p1/c1 /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory\n",

		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us":  "50000\n",
		"sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
		"sys/fs/cgroup/memory/memory.oom_control":     "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
	}
}

// with returns the machine with some files changed; an empty text removes one.
func (f files) with(changes files) files {
	for name, text := range changes {
		f[name] = text
		if text == "" {
			delete(f, name)
		}
	}
	return f
}
