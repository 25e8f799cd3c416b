package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// freeze stops a process, and returns how many connections to the port of address it has accepted and not closed. Its
// side is what counts, so a connection whose client has gone does not.
func freeze(pid int, address string) (int, error) {
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return 0, err
	}
	for {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		if _, rest, _ := bytes.Cut(stat, []byte(") ")); len(rest) > 0 && rest[0] == 'T' {
			break
		}
	}
	open, err := established(address)
	if err != nil {
		return 0, err
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	n := 0
	for _, file := range files {
		if name, err := os.Readlink(file); err == nil && open[name] {
			n++
		}
	}
	return n, err
}

// established are the connections to the port of address, as the links to them are called.
func established(address string) (map[string]bool, error) {
	_, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(service)
	if err != nil {
		return nil, err
	}
	table, err := os.ReadFile("/proc/net/tcp")
	open := make(map[string]bool)
	const local, state, inode, isEstablished = 1, 3, 9, "01"
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > inode && f[state] == isEstablished && strings.HasSuffix(f[local], fmt.Sprintf(":%04X", port)) {
			open["socket:["+f[inode]+"]"] = true
		}
	}
	return open, err
}
