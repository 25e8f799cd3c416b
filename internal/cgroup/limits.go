package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
)

func (s system) cpus(processors int) float64 {
	least := float64(processors)
	for _, g := range s.groups("cpu") {
		for dir := range g.upward() {
			if cpus, ok := s.quota(dir, g.version); ok {
				least = min(least, cpus)
			}
		}
	}
	return least
}

// quota returns what one cgroup allows, in processors.
func (s system) quota(dir string, v version) (float64, bool) {
	var quota, period string
	if v == v1 {
		quota, period = s.line(dir, "cpu.cfs_quota_us"), s.line(dir, "cpu.cfs_period_us")
	} else {
		quota, period, _ = strings.Cut(s.line(dir, "cpu.max"), " ")
	}
	q, err := strconv.ParseInt(quota, 10, 64) // version 1 says -1 for no limit, version 2 says max
	p, err2 := strconv.ParseInt(period, 10, 64)
	if err != nil || err2 != nil || q <= 0 || p <= 0 {
		return 0, false
	}
	return float64(q) / float64(p), true
}

func (s system) oomKills() (uint64, error) {
	err := fs.ErrNotExist
	for _, g := range s.groups("memory") {
		if g.parent {
			continue
		}
		file := path.Join(g.mount, g.path, "memory.events")
		if g.version == v1 {
			file = path.Join(g.mount, g.path, "memory.oom_control")
		}
		var text string
		if text, err = s.field(file, "oom_kill"); err == nil {
			return strconv.ParseUint(text, 10, 64)
		}
	}
	return 0, fmt.Errorf("cgroup: counting out-of-memory kills: %w", err)
}

// line returns the first line of a file, or nothing.
func (s system) line(dir, name string) string {
	text, _ := s.read(path.Join(dir, name))
	first, _, _ := strings.Cut(text, "\n")
	return first
}

// field returns what stands behind name in a file of names and numbers.
func (s system) field(file, name string) (string, error) {
	text, err := s.read(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), " "); key == name {
			return value, nil
		}
	}
	return "", errors.New(name + " is not in " + file)
}

func (s system) read(file string) (string, error) {
	text, err := fs.ReadFile(s.root, strings.TrimPrefix(file, "/"))
	return string(text), err
}
