//go:build !linux

package process

// CollectBelowLimit does nothing: only GOMEMLIMIT limits a process on this system.
func CollectBelowLimit() {}
