//go:build unix

package process

import (
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func TestTheReasonOfAnEndIsWhatIsKnownOfIt(t *testing.T) {
	end := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script)
		_ = cmd.Run() // its state says more
		return cmd
	}
	quit := "SIGQUIT: quit\nPC=0x7f m=2 sigcode=0\n\ngoroutine 0 gp=0xc0 m=2 mp=0xc1 [idle]:\nruntime: g 0 gp=0xc0: unknown pc 0x7f\n"
	crash, killed := end("exit 2").ProcessState, end("kill -9 $$").ProcessState
	terminated, exited := end("kill -15 $$").ProcessState, end("exit 137").ProcessState
	slow := errors.New("it was slow")
	aborted := end("kill -6 $$").ProcessState
	yes, no := func() bool { return true }, func() bool { return false }
	unasked := func() bool { t.Error("asked for a kill that nothing looks like"); return true }
	for _, c := range []struct {
		got  *ExitError
		want string
	}{
		{explain(killed, "", nil, yes), "killed by SIGKILL: the kernel was out of memory for it (OOM kill)"},
		{explain(killed, "", nil, no), "killed by SIGKILL"},
		{explain(killed, "", slow, unasked), "killed: it was slow"},
		{explain(terminated, "", slow, unasked), "killed by SIGTERM"},
		{explain(exited, "", nil, unasked), "exit status 137"},
		{explain(exited, "no database", nil, no), "exit status 137: no database"},
		{explain(exited, "handler panicked\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:7 +0x18", nil, no), "exit status 137"},
		{explain(aborted, "fatal error: all\n"+otherThreads+"quit\n", nil, unasked), "fatal error: all"},
		{explain(aborted, quit, nil, unasked), "killed by SIGABRT"}, // of another thread's, perhaps
		{explain(crash, quit, nil, no), "SIGQUIT: quit"},
		{explain(crash, "runtime: out of memory\n", nil, no), "runtime: out of memory"},
		{explain(crash, "tea\nruntime/cgo: pthread_create failed: no room\nSIGABRT: abort\nPC=0x7f m=2\n", nil, no), "runtime/cgo: pthread_create failed: no room"},
		{
			explain(crash, noThread+"\nSIGABRT: abort\nPC=0x7f m=2\n", nil, no),
			"runtime/cgo: pthread_create failed: Resource temporarily unavailable (no memory for its stack, or too many threads)",
		},
		{
			explain(crash, "runtime: failed to create new OS thread (have 8 already; errno=11)\n"+
				"runtime: may need to increase max user processes (ulimit -u)\nfatal error: newosproc\n\ngoroutine 1 [running]:\n", nil, no),
			"runtime: failed to create new OS thread (have 8 already; errno=11)",
		},
		{explain(crash, "panic: a\n\tb [recovered]\n\tpanic: wrapped: a\n\tb\n\tpanic: third\n\ngoroutine 1 [running]:\n", nil, no), "panic: wrapped: a"},
		{explain(crash, "panic: "+strings.Repeat("é", 5000)+"\n\ngoroutine 1 [running]:\n", nil, no), "panic: " + strings.Repeat("é", 508) + "…"},
		{explain(nil, "", nil, no), "ended, and somebody else in this program was told how"},
	} {
		if c.got.Reason != c.want {
			t.Errorf("got %q, want %q", c.got.Reason, c.want)
		}
	}
}

func TestAKillForWantOfMemoryExplainsOneEnd(t *testing.T) {
	var k kills
	for i, c := range []struct {
		before, after uint64
		want          bool
	}{
		{2, 2, false},
		{2, 3, true},
		{2, 3, false}, // which began before that, and was killed by somebody later
		{3, 3, false},
		{2, 5, true}, // one of two at the same time
		{3, 5, true},
		{3, 5, false},
	} {
		if got := k.explain(c.before, c.after); got != c.want {
			t.Errorf("%d: got %t, want %t", i, got, c.want)
		}
	}
}

func TestOfLastWordsThatManyStacksFollowTheBeginningIsKept(t *testing.T) {
	const stack = "\ngoroutine 7 [running]:\nmain.f()\n\tmain.go:7 +0x18\n"
	many := strings.Repeat(stack, 2*tailSize/len(stack))
	first := "panic: on purpose\n" + stack
	inLine := strings.Repeat("x", 100) + "panic: in a line\n"
	long := "panic: " + strings.Repeat("x", tailSize) + "\n"
	two := "runtime/cgo: pthread_create failed: no room\nSIGABRT: abort\n" + stack
	for name, c := range map[string]struct {
		written []string
		begins  string // if not with stacks
	}{
		"piece by piece":    {append([]string{"before\n", "panic: on ", "purpose\n"}, strings.SplitAfter(many, "0x18\n")...), first},
		"at once":           {[]string{"before\n" + first + many}, first},
		"after others":      {[]string{"panic: that was recovered\n", many, first, many}, first},
		"of two lines":      {[]string{"before\n" + two + many}, two},
		"of two, in pieces": {strings.SplitAfter("before\n"+two+many, "o"), two},
		"of a long line":    {[]string{long[:tailSize], long[tailSize:] + stack}, long[:beginSize]},
		"within a line":     {[]string{inLine + many}, ""},
		"cut within a line": {[]string{inLine, many[:tailSize-len(inLine)+100], many}, ""},
		"cut before such":   {[]string{inLine, many[:tailSize-len(inLine)+99] + "\n"}, ""},
		"cut at its end":    {[]string{"abc\n", (first + many)[:tailSize-3] + "\n"}, first},
		"still there":       {[]string{"panic: that was recovered\n", many, first}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			kept := &tail{next: io.Discard}
			for _, text := range c.written {
				if n, err := io.WriteString(kept, text); n != len(text) || err != nil {
					t.Error(n, err)
				}
			}
			said := kept.text()
			if all := strings.Join(c.written, ""); len(said) > tailSize || !strings.HasSuffix(all, said[len(said)/2:]+"\n") {
				t.Errorf("%d bytes are kept, that end with %q", len(said), said[len(said)-100:])
			}
			if c.begins == "" && strings.HasPrefix(said, "panic: ") || !strings.HasPrefix(said, c.begins) {
				t.Errorf("it begins with %.100q", said)
			}
		})
	}
}
