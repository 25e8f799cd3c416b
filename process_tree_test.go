//go:build linux

package watt_test

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// process is one as the system knows it.
type process struct {
	pid, parent, group int
	state              string
}

// processes returns all that there are.
func processes(t *testing.T) (all []process) {
	t.Helper()
	all, err := allProcesses()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func allProcesses() (all []process, err error) {
	entries, err := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has just ended
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		parent, _ := strconv.Atoi(fields[1])
		group, _ := strconv.Atoi(fields[2])
		all = append(all, process{pid, parent, group, fields[0]})
	}
	return all, err
}

// stop stops a process, and waits until it has.
func stop(t *testing.T, pid int) {
	t.Helper()
	syscall.Kill(pid, syscall.SIGSTOP)
	soon(t, "the process to be stopped", func() bool {
		return slices.ContainsFunc(processes(t), func(p process) bool { return p.pid == pid && p.state == "T" })
	})
}

// children returns the children of this process that run an app which no other test has, by what they say of themselves.
func children(t *testing.T, app string) (all []int) {
	t.Helper()
	for _, p := range processes(t) {
		env, _ := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/environ")
		if p.parent == os.Getpid() && strings.Contains(string(env), `"app":"`+app+`"`) {
			all = append(all, p.pid)
		}
	}
	return all
}
