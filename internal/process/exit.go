package process

// ExitError is how a process has ended. An exit with status 0 is one too: nobody has asked for it.
type ExitError struct {
	// Reason says it in a line.
	Reason string
	// PID is what its number was, by which the kernel's log names it; 0 if that is not known.
	PID int
	// Killed reports whether a signal has ended it.
	Killed bool
	// Output is the end of what it wrote to stderr, 64 KiB at most.
	Output string
	// Err is why this process has killed it, or nil.
	Err error
}

// Error returns the reason.
func (e *ExitError) Error() string { return e.Reason }

// Unwrap returns why it was killed.
func (e *ExitError) Unwrap() error { return e.Err }
