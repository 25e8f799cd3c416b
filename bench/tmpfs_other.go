//go:build !linux

package main

// inMemoryOnly reports whether what is written to a directory stays in memory, where the system tells.
func inMemoryOnly(string) bool { return false }
