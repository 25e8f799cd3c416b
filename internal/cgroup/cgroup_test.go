package cgroup_test

import (
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"

	"github.com/org/watt/internal/cgroup"
)

func TestTheLeastQuotaOfACgroupAndItsParentsCounts(t *testing.T) {
	const dir = "sys/fs/cgroup/"
	tests := []struct {
		name    string
		machine files
		want    float64
	}{
		{"no files at all", files{}, 8},
		{"no cgroup", files{selfMounts: unified, dir + "cpu.max": "50000 100000\n"}, 8},
		{"cgroups are not mounted", files{selfCgroup: "0::/\n", selfMounts: otherMounts, dir + "cpu.max": "50000 100000\n"}, 8},
		{"the parent's", service(), 2.5},
		{"its own", service().with(files{dir + "app.slice/web.service/cpu.max": "12345 100000\n"}), 0.12345},
		{"the parent's without the cgroup's own file", service().with(files{dir + "app.slice/web.service/cpu.max": ""}), 2.5},
		{"the uppermost", service().with(files{dir + "cpu.max": "10000 20000\n"}), 0.5},
		{"more than the machine has", service().with(files{dir + "app.slice/cpu.max": "1600000 100000\n"}), 8},
		{"a period of 0", service().with(files{dir + "app.slice/cpu.max": "100000 0\n"}), 8},
		{"a quota of 0", service().with(files{dir + "app.slice/cpu.max": "0 100000\n"}), 8},
		{"nonsense", service().with(files{dir + "app.slice/cpu.max": "many\n"}), 8},
		{"an empty file", service().with(files{dir + "app.slice/cpu.max": "\n"}), 8},

		{"version 1, in a container", pod(), 0.5},
		{"version 1, -1 is none", pod().with(files{dir + "cpu,cpuacct/cpu.cfs_quota_us": "-1\n"}), 8},
		{"version 1, no period", pod().with(files{dir + "cpu,cpuacct/cpu.cfs_period_us": ""}), 8},
		{"version 1, the parent's", files{
			selfCgroup: "4:cpu,cpuacct:/a/b\n", selfMounts: separate,
			dir + "cpu,cpuacct/a/b/cpu.cfs_quota_us": "300000\n", dir + "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
			dir + "cpu,cpuacct/a/cpu.cfs_quota_us": "75000\n", dir + "cpu,cpuacct/a/cpu.cfs_period_us": "50000\n",
		}, 1.5},
		{"version 1, not mounted", files{
			selfCgroup: "4:cpu,cpuacct:/\n0::/\n", selfMounts: unified, dir + "cpu.max": "50000 100000\n",
		}, 8},
		{"version 1, cpuset and cpuacct are not cpu", files{
			selfCgroup: "5:cpuset:/\n6:cpuacct:/\n", selfMounts: separate + "35 31 0:32 / /cpuacct rw - cgroup cgroup rw,cpuacct\n",
			dir + "cpuset/cpu.cfs_quota_us": "50000\n", dir + "cpuset/cpu.cfs_period_us": "100000\n",
			"cpuacct/cpu.cfs_quota_us": "50000\n", "cpuacct/cpu.cfs_period_us": "100000\n",
		}, 8},
		{"hybrid: cpu by version 1", files{
			selfCgroup: "4:cpu,cpuacct:/a\n0::/a\n", selfMounts: separate + "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			dir + "cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n", dir + "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
			dir + "unified/a/cpu.max": "10000 100000\n",
		}, 0.5},
		{"hybrid: cpu by version 2", files{
			selfCgroup: "3:memory:/x\n0::/a\n", selfMounts: separate + "36 31 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
			dir + "cpu,cpuacct/x/cpu.cfs_quota_us": "10000\n", dir + "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
			dir + "unified/a/cpu.max": "50000 100000\n",
		}, 0.5},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := cgroup.CPUsOn(test.machine.root(), 8); got != test.want {
				t.Errorf("got %v processors, want %v", got, test.want)
			}
		})
	}
}

func TestACgroupIsFoundThroughNamespaces(t *testing.T) {
	mounted := func(lines ...string) string {
		return otherMounts + strings.Join(lines, "\n") + "\n"
	}
	tests := []struct {
		name, cgroup, mounts string
		limited              string // directory with half a processor
		want                 float64
	}{
		{"namespace of its own", "/", unified, "sys/fs/cgroup", 0.5},
		{"a child in the namespace", "/worker", unified, "sys/fs/cgroup/worker", 0.5},
		{"the whole host's cgroups are mounted", "/docker/abc", mounted("31 23 0:28 / /host/cgroup ro - cgroup2 cgroup2 rw"), "host/cgroup/docker", 0.5},
		{"mounted by its host", "/docker/abc", mounted("31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 0.5},
		{"a name that only begins the same", "/docker/abc", mounted("31 23 0:28 /docker/a /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 8},
		{"below what its host mounted", "/docker/abc/in", mounted("31 23 0:28 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup/in", 0.5},
		{"outside its namespace, out of sight", "/../../init", unified, "sys/fs/cgroup", 8},
		{"outside its namespace, mounted from there", "/../../init", mounted("31 23 0:28 /../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup/init", 0.5},
		{"outside its namespace, itself mounted", "/../../init", mounted("31 23 0:28 /../../init /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 0.5},
		{"further outside than the mount", "/../../init", mounted("31 23 0:28 /.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 8},
		{"only a parent is in sight", "/", mounted("31 23 0:28 /../.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 0.5},
		{"only a parent's other child is in sight", "/", mounted("31 23 0:28 /../other /sys/fs/cgroup ro - cgroup2 cgroup2 rw"), "sys/fs/cgroup", 8},
		{"a mount point with blanks", "/my app", mounted(`31 23 0:28 / /sys/fs\040of\134me rw - cgroup2 cgroup2 rw`), `sys/fs of\me/my app`, 0.5},
		{"a second mount shows more", "/a/b", mounted("31 23 0:28 /a/b /inner rw - cgroup2 cgroup2 rw", "32 23 0:28 / /outer rw - cgroup2 cgroup2 rw"), "outer/a", 0.5},
		{"a second mount covers the first", "/a", mounted("31 23 0:28 / /same rw - cgroup2 cgroup2 rw", "32 31 0:40 / /same rw - tmpfs tmpfs rw"), "same/a", 8},
		{"a broken line", "/", "31 23 0:28 /\nnonsense\n - \n" + unified, "sys/fs/cgroup", 0.5},
		{"a broken path", "nowhere", unified, "sys/fs/cgroup", 8},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			machine := files{selfCgroup: "0::" + test.cgroup + "\n", selfMounts: test.mounts, test.limited + "/cpu.max": "50000 100000\n"}
			if got := cgroup.CPUsOn(machine.root(), 8); got != test.want {
				t.Errorf("got %v processors, want %v", got, test.want)
			}
		})
	}
}

func TestOOMKillsAreThoseOfTheProcessesOwnCgroup(t *testing.T) {
	for name, test := range map[string]struct {
		machine files
		want    uint64
	}{
		"version 2": {service().with(files{"sys/fs/cgroup/memory.events": "oom_kill 100\n"}), 2},
		"version 1": {pod(), 7},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := cgroup.OOMKillsOn(test.machine.root())
			if err != nil || got != test.want {
				t.Errorf("got %v kills and error %v, want %v", got, err, test.want)
			}
		})
	}
}

func TestOOMKillsThatNobodyCountsAreAnError(t *testing.T) {
	tests := []struct {
		name    string
		machine files
		missing bool // a file is
	}{
		{"no cgroup", files{}, true},
		{"the root cgroup of version 2", files{selfCgroup: "0::/\n", selfMounts: unified}, true},
		{"an ended process's cgroup that was removed", service().with(files{selfCgroup: "0::/gone (deleted)\n"}), true},
		{"only a parent is in sight", files{
			selfCgroup:                    "0::/\n",
			selfMounts:                    "31 23 0:28 /.. /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n",
			"sys/fs/cgroup/memory.events": "oom_kill 5\n",
		}, true},
		{"an old kernel", pod().with(files{"sys/fs/cgroup/memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\n"}), false},
		{"nonsense", pod().with(files{"sys/fs/cgroup/memory/memory.oom_control": "oom_kill some\n"}), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := cgroup.OOMKillsOn(test.machine.root())
			if err == nil || errors.Is(err, fs.ErrNotExist) != test.missing {
				t.Errorf("got %v kills and error %v, want an error (of a missing file: %v)", got, err, test.missing)
			}
		})
	}
}

func TestThisMachineAllowsSomething(t *testing.T) {
	if got, most := cgroup.CPUs(), float64(runtime.NumCPU()); got <= 0 || got > most {
		t.Errorf("got %v processors, want some and at most %v", got, most)
	}
}
