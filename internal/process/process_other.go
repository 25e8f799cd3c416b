//go:build !unix

package process

import "errors"

// Supported reports whether this system can do what the package does.
const Supported = false

// Starter cannot start anything on this system.
type Starter struct{}

// Program would identify the file that this process runs.
func Program() string { return "" }

// NewStarter returns one whose Start fails.
func NewStarter() *Starter { return new(Starter) }

// Close does nothing.
func (s *Starter) Close() {}

// Start fails on this system.
func (s *Starter) Start(Spec) (*Process, error) { return nil, errors.ErrUnsupported }

// Process cannot be had on this system.
type Process struct{}

// Ended returns nil.
func (p *Process) Ended() <-chan struct{} { return nil }

// Done returns nil.
func (p *Process) Done() <-chan struct{} { return nil }

// PID returns 0.
func (p *Process) PID() int { return 0 }

// Exit returns nil.
func (p *Process) Exit() *ExitError { return nil }

// Kill does nothing.
func (p *Process) Kill(error) {}

// LowerPriority fails on this system.
func (p *Process) LowerPriority(int) error { return errors.ErrUnsupported }

// SetMemoryLimit fails on this system.
func (p *Process) SetMemoryLimit(uint64) error { return errors.ErrUnsupported }
