//go:build !linux

// Package hrtick is for Linux. On other systems it does nothing.
package hrtick

// Ticks are none.
type Ticks struct{}

// Begin does nothing.
func (*Ticks) Begin() {}

// End does nothing.
func (*Ticks) End() {}

// Close does nothing.
func (*Ticks) Close() {}
