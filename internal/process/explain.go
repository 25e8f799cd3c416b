//go:build unix

package process

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lastWords is where the Go runtime begins to say why it ends a program, with crashed as its status. beginWords is a line that
// begins so.
var (
	lastWords  = regexp.MustCompile(`(?m)^` + words)
	beginWords = regexp.MustCompile(`^` + words)
)

// Why Go could not begin a thread stands before what it ends itself by: with cgo a signal, else the "fatal error: newosproc".
// What begins with "runtime: g", as in "runtime: g 0: unknown pc", says only that a stack cannot be read.
const words = `(?:(?:runtime/cgo: .*\n)?SIG[A-Z]+: |panic: |(?:` + threadWords + `)?fatal error: |runtime: (?:[^g]|g[^ ])).*`

const threadWords = `runtime: failed to create .*\n(?:runtime: may .*\n)?`

// otherThreads is where what Go's signals to its other threads have added begins, in a program that is to leave a core, with
// GOTRACEBACK=crash.
const otherThreads = "\n-----\n\nSIGQUIT: "

const crashed = 2

// reasonSize is how long a reason may be, in bytes: what a program says of its end may be as long as it likes.
const reasonSize = 1 << 10

// explain tells the ways to end apart: killed by this process, for want of memory, by another signal, by a panic or
// a fatal error of Go's, or by an exit with a status. It asks starved, whether the kernel was out of memory, of a process
// that may have been killed for that.
func explain(state *os.ProcessState, output string, why error, starved func() bool) *ExitError {
	e := &ExitError{Output: output, Err: why}
	if state == nil { // the program reaps what it has not started
		e.Reason = "ended, and somebody else in this program was told how"
		return e
	}
	e.PID = state.Pid()
	e.Reason, e.Killed = reason(state, output, why, starved)
	if len(e.Reason) > reasonSize {
		e.Reason = strings.ToValidUTF8(e.Reason[:reasonSize], "") + "…"
	}
	return e
}

// reason returns why a process has ended, and whether a signal has ended it.
func reason(state *os.ProcessState, output string, why error, starved func() bool) (text string, killed bool) {
	signal := ""
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		signal = unix.SignalName(status.Signal())
	}
	switch {
	case signal == "SIGKILL" && why != nil:
		return "killed: " + why.Error(), true
	case signal == "SIGKILL" && starved():
		return "killed by SIGKILL: the kernel was out of memory for it (OOM kill)", true
	case signal == "SIGABRT" && dumped(output) != "": // by itself
		return dumped(output), false
	case signal != "":
		return "killed by " + signal, true
	default:
		return said(state, output), false
	}
}

// kills are those of the kernel for want of memory that have explained an end.
type kills struct {
	mu   sync.Mutex
	told uint64
}

// explain reports whether there is one more of them than before, when the process began, that was not another's end: after
// tells how many there are by now.
func (k *kills) explain(before, after uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.told = max(k.told, before); k.told >= after {
		return false
	}
	k.told++
	return true
}

// noThread is what a program with cgo says that cannot begin a thread, as one that has come to its limit of memory.
const noThread = "runtime/cgo: pthread_create failed: Resource temporarily unavailable"

// violation is what Go ends itself by where it did not see that it got no memory, and otherwise for what is wrong in C.
const violation = "SIGSEGV: segmentation violation"

// lastOf returns the last words in the output, or "". If a panic was recovered and another followed, as where that is
// wrapped, they are that one.
func lastOf(output string) string {
	all := lastWords.FindAllStringIndex(output, -1)
	if all == nil {
		return ""
	}
	lines := strings.Split(output[all[len(all)-1][0]:], "\n")
	last := lines[0]
	for i, line := range lines[1:] {
		if !strings.HasPrefix(line, "\t") { // as the rest of a panic does
			break
		}
		if strings.HasPrefix(line, "\tpanic: ") && strings.HasSuffix(lines[i], " [recovered]") {
			last = line[len("\t"):]
		}
	}
	if last == noThread {
		last += " (no memory for its stack, or too many threads)"
	}
	return last
}

// dumped returns the last words of a process that was to leave a core, or "".
func dumped(output string) string {
	before, _, _ := strings.Cut(output, otherThreads)
	if last := lastOf(before); !strings.HasPrefix(last, "SIGQUIT: ") { // the signal of another thread's, perhaps
		return last
	}
	return ""
}

// said returns what a process that was not killed said of its end.
func said(state *os.ProcessState, output string) string {
	if last := lastOf(output); last != "" && state.ExitCode() == crashed {
		return last
	}
	last := output[strings.LastIndexByte(output, '\n')+1:]
	if last == "" || last[0] == '\t' { // the end of a stack that was logged for another reason
		return state.String()
	}
	return fmt.Sprintf("%v: %s", state, last)
}
