//go:build unix

package process_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt/internal/process"
)

// roleVariable says what a process does that a test has started.
const roleVariable = "PROCESS_TEST_ROLE"

// roles are what it may do.
func roles() map[string]func() {
	return map[string]func(){
		"succeed": func() {},
		"exit": func() {
			fmt.Fprint(os.Stderr, "panic: in a library, which has recovered\nno database\n")
			os.Exit(3)
		},
		"exit as crashed": func() {
			fmt.Fprint(os.Stderr, "usage: …\n")
			os.Exit(2)
		},
		"exit after much": func() {
			fmt.Fprint(os.Stderr, "panic: in a library, which has recovered\n"+strings.Repeat("and much more\n", 10<<10)+"usage: …\n")
			os.Exit(2)
		},
		"panic": func() { panic("on purpose") },
		"panic once more": func() {
			defer func() { panic(fmt.Errorf("job 7: %v", recover())) }()
			panic("on purpose")
		},
		"panic while it panics": func() {
			defer func() { panic("beside that") }()
			panic("on purpose")
		},
		"hang with many": func() {
			startMany()
			hang()
		},
		"panic with many": func() {
			startMany()
			debug.SetTraceback("all")
			panic("on purpose")
		},
		"crash": func() {
			toLeaveACore()
			panic("on purpose")
		},
		"hang and crash": func() {
			toLeaveACore()
			hang()
		},
		"hang and crash with many": func() {
			startMany()
			toLeaveACore()
			hang()
		},
		"fatal error": func() {
			fmt.Fprint(os.Stderr, "panic: an old one\n")
			new(sync.Mutex).Unlock()
		},
		"hang": hang,
		"tell": func() { fmt.Println(strings.Join(os.Args[1:], " ")) },
		"leave": func() {
			cmd := exec.Command("sleep", "60")
			cmd.ExtraFiles = []*os.File{os.NewFile(3, "control")}
			if err := cmd.Start(); err != nil {
				panic(err)
			}
		},
		"start without a file": func() {
			if err := os.Remove(os.Args[0]); err != nil {
				panic(err)
			}
			_, err := process.NewStarter().Start(process.Spec{Control: os.Stdin, Stdout: io.Discard, Stderr: io.Discard})
			fmt.Println(err)
		},
		"limit beyond its own": func() {
			const most = 1 << 50
			if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: most, Max: most}); err != nil {
				panic(err)
			}
			p, err := process.NewStarter().Start(process.Spec{
				Env: append(os.Environ(), roleVariable+"=hang"), Control: os.Stdin, Stdout: io.Discard, Stderr: io.Discard,
			})
			if err != nil {
				panic(err)
			}
			fmt.Println(p.SetMemoryLimit(2 * most))
			p.Kill(nil)
			<-p.Done()
		},
		"flood": func() {
			for range 3 << 10 {
				os.Stderr.WriteString(strings.Repeat("x", 1023) + "\n")
			}
			fmt.Fprintln(os.Stderr, "the end")
			os.Exit(1)
		},
	}
}

// startMany starts so many goroutines that their stacks are more than what is kept of stderr.
func startMany() {
	for range 1000 {
		go func() { select {} }()
	}
}

// toLeaveACore has Go end this program so that the system would keep a core, but for its limit.
func toLeaveACore() {
	debug.SetTraceback("crash") // as GOTRACEBACK does
	if err := unix.Setrlimit(unix.RLIMIT_CORE, new(unix.Rlimit)); err != nil {
		panic(err)
	}
}

func hang() {
	fmt.Println("up")
	io.Copy(io.Discard, os.NewFile(3, "control"))
}

func TestMain(m *testing.M) {
	if play := roles()[os.Getenv(roleVariable)]; play != nil {
		play()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// played is a process that plays a role.
type played struct {
	*process.Process
	control        *os.File // our end: the process sees it closed
	stdout, stderr bytes.Buffer
	up             chan struct{} // closed when it has said something
	once           sync.Once
}

// Write implements [io.Writer] for its stdout.
func (p *played) Write(text []byte) (int, error) {
	p.once.Do(func() { close(p.up) })
	return p.stdout.Write(text)
}

func play(t *testing.T, role string, args ...string) *played {
	t.Helper()
	return playOf(t, starter(t), role, args...)
}

func starter(t *testing.T) *process.Starter {
	t.Helper()
	s := process.NewStarter()
	t.Cleanup(s.Close)
	return s
}

// playOf is play with a starter that others have, too.
func playOf(t *testing.T, s *process.Starter, role string, args ...string) *played {
	t.Helper()
	theirs, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := &played{control: ours, up: make(chan struct{})}
	p.Process, err = s.Start(process.Spec{
		Args: args, Env: append(os.Environ(), roleVariable+"="+role), Control: theirs, Stdout: p, Stderr: &p.stderr,
	})
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill(nil)
		ours.Close()
		<-p.Done()
	})
	return p
}

// exit returns how it has ended.
func (p *played) exit(t *testing.T) *process.ExitError {
	t.Helper()
	select {
	case <-p.Done():
		return p.Exit()
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
		return nil
	}
}

func TestTheWaysToEndAreToldApart(t *testing.T) {
	t.Parallel()
	kill := func(s syscall.Signal) func(*played) { return func(p *played) { syscall.Kill(p.PID(), s) } }
	for name, c := range map[string]struct {
		role   string
		do     func(*played)
		want   string
		killed bool
	}{
		"by itself":       {"succeed", nil, "exit status 0", false},
		"exit":            {"exit", nil, "exit status 3: no database", false},
		"exit as crashed": {"exit as crashed", nil, "exit status 2: usage: …", false},
		"exit after much": {"exit after much", nil, "exit status 2: usage: …", false},
		"panic":           {"panic", nil, "panic: on purpose", false},
		"wrapped panic":   {"panic once more", nil, "panic: job 7: on purpose", false},
		"two panics":      {"panic while it panics", nil, "panic: on purpose", false},
		"fatal error":     {"fatal error", nil, "fatal error: sync: unlock of unlocked mutex", false},
		"panic with many": {"panic with many", nil, "panic: on purpose", false},
		"Go's with many":  {"hang with many", kill(syscall.SIGSEGV), "SIGSEGV: segmentation violation", false},
		"panic and crash": {"crash", nil, "panic: on purpose", false},
		"signal":          {"hang", kill(syscall.SIGTERM), "killed by SIGTERM", true},
		"signal of Go's":  {"hang", kill(syscall.SIGQUIT), "SIGQUIT: quit", false},
		"with a limit": {"hang", func(p *played) {
			p.SetMemoryLimit(1 << 30)
			syscall.Kill(p.PID(), syscall.SIGSEGV)
		}, "SIGSEGV: segmentation violation (perhaps it got no memory: it has a MemoryLimit)", false},
		"signal, crash":   {"hang and crash", kill(syscall.SIGSEGV), "SIGSEGV: segmentation violation", false},
		"crash with many": {"hang and crash with many", kill(syscall.SIGSEGV), "SIGSEGV: segmentation violation", false},
		"killed":          {"hang", kill(syscall.SIGKILL), "killed by SIGKILL", true},
		"killed by us": {"hang", func(p *played) {
			p.Kill(errors.New("it was slow"))
			p.Kill(errors.New("a second reason"))
		}, "killed: it was slow", true},
		"killed without a reason": {"hang", func(p *played) { p.Kill(nil) }, "killed by SIGKILL", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := play(t, c.role)
			if c.do != nil {
				<-p.up
				c.do(p)
			}
			if exit := p.exit(t); exit.Reason != c.want || exit.Killed != c.killed {
				t.Errorf("got %q, killed %t, want %q; it said %.500q", exit.Reason, exit.Killed, c.want, exit.Output)
			}
		})
	}
}

func TestWhyAProcessWasKilledIsInItsError(t *testing.T) {
	t.Parallel()
	why := errors.New("it was slow")
	p := play(t, "hang")
	p.Kill(why)
	if exit := p.exit(t); !errors.Is(exit, why) {
		t.Errorf("got %v", exit)
	}
}

func TestWhatAProcessWritesPassesAndTheEndOfStderrIsKept(t *testing.T) {
	t.Parallel()
	p := play(t, "flood")
	exit := p.exit(t)
	if got, want := p.stderr.Len(), 3<<20+len("the end\n"); got != want {
		t.Errorf("%d bytes have passed, want %d", got, want)
	}
	if n := len(exit.Output); n > 64<<10 || n < 63<<10 || !strings.HasSuffix(exit.Output, "x\nthe end") {
		t.Errorf("kept are %d bytes that end with %q", n, exit.Output[max(0, n-20):])
	}
	if exit.Reason != "exit status 1: the end" {
		t.Errorf("got %q", exit.Reason)
	}
}

func TestAProcessGetsTheProgramsArgumentsButNoFlagsOfTests(t *testing.T) {
	t.Parallel()
	args := process.Args([]string{"-test.v", "serve", "--test.run=^X$", "-addr=:80", "test.txt", "-", "--"})
	p := play(t, "tell", args...)
	p.exit(t)
	if got := strings.TrimSpace(p.stdout.String()); got != "serve -addr=:80 test.txt - --" {
		t.Errorf("got %q", got)
	}
}

func TestAProgramWhoseFileHasGoneIsNotStartedAgain(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(os.Args[0])
	file := filepath.Join(t.TempDir(), "program")
	syscall.ForkLock.RLock() // a process of another test's, forked meanwhile, would keep the file from being run
	err = errors.Join(err, os.WriteFile(file, program, 0o700))
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), roleVariable+"=start without a file")
	if said, err := cmd.Output(); err != nil || !strings.Contains(string(said), "has gone, or been replaced; start it anew") {
		t.Errorf("got %s, %v", said, err)
	}
}

func TestALimitOfMemoryDoesNotGoBeyondThatOfThisProgram(t *testing.T) {
	t.Parallel()
	p := play(t, "limit beyond its own")
	exit := p.exit(t)
	if got := strings.TrimSpace(p.stdout.String()); got != "<nil>" {
		t.Errorf("got %q, and %v", got, exit)
	}
}

func TestAProcessSeesWhenItsParentHasClosedTheControlSocket(t *testing.T) {
	t.Parallel()
	p := play(t, "hang")
	p.control.Close()
	if exit := p.exit(t); exit.Reason != "exit status 0" {
		t.Errorf("got %q", exit.Reason)
	}
}

func TestWhatAProcessHasLeftInItsGroupEndsWithIt(t *testing.T) {
	t.Parallel()
	p := play(t, "leave")
	p.exit(t)
	p.control.SetWriteDeadline(time.Now().Add(10 * time.Second)) // a full pipe holds up whoever writes
	for {
		if _, err := p.control.Write([]byte{0}); errors.Is(err, syscall.EPIPE) { // nobody is left to read it
			return
		} else if err != nil {
			t.Fatalf("something of its group is left: %v", err)
		}
	}
}

func TestNothingIsDoneToAProcessThatHasEnded(t *testing.T) {
	t.Parallel()
	p := play(t, "succeed")
	p.exit(t)
	p.Kill(errors.New("too late")) // its number may be another's
	if err := errors.Join(p.LowerPriority(19), p.SetMemoryLimit(1<<30)); err != nil {
		t.Error(err)
	}
	if exit := p.Exit(); exit.Reason != "exit status 0" || exit.Err != nil {
		t.Errorf("got %q, %v", exit.Reason, exit.Err)
	}
}

func TestAStarterThatIsClosedHasNoGoroutine(t *testing.T) {
	for range 1000 {
		process.NewStarter().Close()
		var all strings.Builder
		if pprof.Lookup("goroutine").WriteTo(&all, 1); strings.Contains(all.String(), "NewStarter") {
			t.Fatal(all.String())
		}
	}
}
