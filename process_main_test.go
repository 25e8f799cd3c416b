//go:build linux

package watt_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/org/watt"
)

// mainVariable names which other main the test binary has.
const mainVariable = "WATT_TEST_MAIN"

// runMain runs that main. It reports whether this process has one.
func runMain() bool {
	run := map[string]func() error{
		"named": mainNamed, "nice": mainNice, "starting": mainStarting, "asking": mainAsking,
		"adopting": mainAdopting, "orphan": mainOrphan, "writing": mainWriting, "labelled": mainLabelled,
		"curious": mainCurious, "popular": mainPopular, "flooding": func() error { return mainFlooding(nil) },
		"flooding lines": func() error { return mainFlooding(func(string, int, string) {}) },
		"burying":        mainBurying, "crowded": mainCrowded,
		"panicking": func() error { return mainPanicking(nil) }, "silenced": func() error { return mainPanicking(zap.NewNop()) },
	}[os.Getenv(mainVariable)]
	if run == nil {
		return false
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// mainOf runs one of those mains to its end, and returns what it prints.
func mainOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, _ := bothOf(t, name, args...)
	return out
}

// bothOf is mainOf, and returns what it writes to standard error, too.
func bothOf(t *testing.T, name string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var said bytes.Buffer
	cmd.Stderr, cmd.WaitDelay = &said, time.Second
	cmd.Env = append(os.Environ(), mainVariable+"="+name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("got %q, %v: %s", out, err, said.String())
	}
	return strings.TrimSpace(string(out)), said.String()
}

// telling starts an app in a process of its own that tells something, prints that and what after does, and shuts down.
func telling(change func(*watt.App), tell func() string, after func(*watt.Runtime) error) error {
	a := watt.App{Name: "one", Isolation: watt.OwnProcess, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, tell())
	})}
	change(&a)
	return printing(watt.New(a), after)
}

// printing starts rt, prints what its app "one" answers and what after does, which may be nil, and shuts down.
func printing(rt *watt.Runtime, after func(*watt.Runtime) error) error {
	if err := rt.Start(pprof.WithLabels(context.Background(), pprof.Labels("site", "north"))); err != nil {
		return err
	}
	resp, err := rt.Env().Get(context.Background(), "http://one.watt.local/")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
		return err
	}
	if after != nil {
		if err := after(rt); err != nil {
			return err
		}
	}
	return rt.Shutdown(context.Background())
}

func unchanged(*watt.App) {}

// mainNamed does what its name says, as busybox does.
func mainNamed() error {
	if name := filepath.Base(os.Args[0]); name != "serve" {
		return fmt.Errorf("usage: call me serve, not %q", name)
	}
	return telling(unchanged, func() string { return filepath.Base(os.Args[0]) }, nil)
}

func TestAChildHasTheNameByWhichItsParentWasCalled(t *testing.T) {
	t.Parallel()
	self, err := filepath.Abs(os.Args[0])
	link := filepath.Join(t.TempDir(), "serve")
	if err == nil {
		err = os.Symlink(self, link)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := mainOf(t, "named", link); got != "serve" {
		t.Errorf("got %q", got)
	}
}

// mainLabelled tells which labels what serves in a child has.
func mainLabelled() error {
	return telling(unchanged, func() string {
		var profile strings.Builder
		pprof.Lookup("goroutine").WriteTo(&profile, 1)
		return regexp.MustCompile(`\{"app":"one".*\}`).FindString(profile.String())
	}, nil)
}

func TestWhatServesInAChildHasTheLabelsOfMain(t *testing.T) {
	t.Parallel()
	if got, want := mainOf(t, "labelled", os.Args[0]), `{"app":"one", "instance":"0", "site":"north"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// mainCurious has goroutines that ask the runtime how it is, and change it as long as that is possible, while Run starts
// the instance.
func mainCurious() error {
	rt := watt.New(public(watt.App{Name: "one", Isolation: watt.OwnProcess, Handler: http.NotFoundHandler()}))
	for range 2 {
		go func() {
			for watt.IsChild() {
				rt.Status()
				_ = rt.Ready()
				_ = rt.Update("one", unchanged)
			}
		}()
	}
	if err := rt.Start(context.Background()); err != nil {
		return err
	}
	return rt.Shutdown(context.Background())
}

func TestMainMayAskHowItIsWhileItsInstanceStarts(t *testing.T) {
	t.Parallel()
	if _, stderr := bothOf(t, "curious", os.Args[0]); strings.Contains(stderr, "DATA RACE") { // if that is looked for
		t.Error(stderr)
	}
}

// mainPopular has an app that may call a thousand others.
func mainPopular() error {
	calls := watt.App{Name: "one", Isolation: watt.OwnProcess, New: passing("callee-of-an-ordinary-name-999")}
	var apps []watt.App
	for i := range 1000 {
		app := watt.App{Name: fmt.Sprintf("callee-of-an-ordinary-name-%d", i), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, i)
		})}
		apps = append(apps, app)
		calls.Calls = append(calls.Calls, app.Name)
	}
	return printing(watt.New(append(apps, calls)...), nil)
}

func TestAnAppInAProcessOfItsOwnMayCallAThousandOthers(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "popular", os.Args[0]); got != "999" {
		t.Errorf("got %q", got)
	}
}

func mainNice() error {
	return telling(func(a *watt.App) { a.Nice = 5 }, func() string { return strconv.Itoa(niceness()) }, nil)
}

// niceness returns that of this process.
func niceness() int {
	n, _ := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	return 20 - n
}

func TestNiceNeverRaisesThePriority(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "nice", "nice", "-n", "19", os.Args[0]); got != "19" {
		t.Errorf("got a niceness of %s, want its parent's 19", got)
	}
}

// mainStarting starts something before Run that outlives it, in the child.
func mainStarting() error {
	if os.Getenv("WATT_CHILD") != "" { // IsChild would see to the control socket
		cmd := exec.Command("sleep", "10")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return err
		}
	}
	return telling(unchanged, func() string { return "" }, func(rt *watt.Runtime) error {
		began := time.Now()
		err := rt.Restart("one", 0)
		fmt.Println(time.Since(began) < 5*time.Second)
		return err
	})
}

func TestWhatMainHasStartedDoesNotKeepAnInstanceFromEnding(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "starting", os.Args[0]); got != "true" {
		t.Errorf("got %q, want a restart that does not wait for what main has started", got)
	}
}

// mainAsking asks what it is before it starts something.
func mainAsking() error {
	inherited := watt.IsChild() && exec.Command("test", "-S", "/proc/self/fd/3").Run() == nil
	return telling(unchanged, func() string { return strconv.FormatBool(inherited) }, nil)
}

func TestWhatMainStartsOnceItHasAskedDoesNotInheritTheControlSocket(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "asking", os.Args[0]); got != "false" {
		t.Errorf("got %q", got)
	}
}

// mainAdopting adopts orphans, as the first process of a container does. Its child leaves a program in the background.
func mainAdopting() error {
	if !watt.IsChild() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	return telling(unchanged, func() string {
		cmd := exec.Command("sh", "-c", `"$0" & exit 0`, os.Args[0])
		cmd.Env = append(os.Environ(), mainVariable+"=orphan")
		said, err := cmd.Output() // which ends with the orphan
		return strings.TrimSpace(fmt.Sprint(string(said), err))
	}, nil)
}

// mainOrphan waits until the shell that has started it has ended.
func mainOrphan() error {
	var child struct{ Parent int }
	if err := json.Unmarshal([]byte(os.Getenv("WATT_CHILD")), &child); err != nil {
		return err
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); os.Getppid() != child.Parent && time.Since(began) < patience; {
		<-tick.C
	}
	fmt.Print(os.Getppid() == child.Parent, " ", watt.IsChild(), " ")
	return nil
}

func TestWhatAChildHasLeftInTheBackgroundIsNoChild(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "adopting", os.Args[0]); got != "true false <nil>" {
		t.Errorf("got %q, want an orphan that its parent has adopted and that is no child", got)
	}
}

// mainBurying adopts orphans, and replaces a child that leaves some.
func mainBurying() error {
	if !watt.IsChild() {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	return telling(unchanged, func() string {
		for range 3 {
			if err := exec.Command("sleep", "60").Start(); err != nil {
				return err.Error()
			}
		}
		return "started"
	}, func(rt *watt.Runtime) error {
		if err := rt.Restart("one", 0); err != nil {
			return err
		}
		left := 0
		all, err := allProcesses()
		for _, p := range all {
			if p.parent == os.Getpid() && p.pid != rt.Status()[0].PerInstance[0].PID {
				left++
			}
		}
		fmt.Print(left, " left")
		return err
	})
}

func TestOfWhatAChildHasLeftNoZombieRemains(t *testing.T) {
	t.Parallel()
	if got := mainOf(t, "burying", os.Args[0]); got != "started\n0 left" {
		t.Errorf("got %q", got)
	}
}

// mainWriting writes to both streams, in the child.
func mainWriting() error {
	return telling(unchanged, func() string {
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
		return ""
	}, nil)
}

func TestWhatAChildWritesIsOnItsParentsSameStreams(t *testing.T) {
	t.Parallel()
	if out, said := bothOf(t, "writing", os.Args[0]); out != "to stdout" || said != "to stderr\n" {
		t.Errorf("got %q and %q", out, said)
	}
}

// mainFlooding writes more to both streams, in the child, than a pipe holds.
func mainFlooding(output func(app string, instance int, line string)) error {
	flood := strings.Repeat("x", 1023) + "\n"
	rt := watt.New(watt.App{Name: "one", Isolation: watt.OwnProcess, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 1 << 10 {
			fmt.Print(flood)
			fmt.Fprint(os.Stderr, flood)
		}
		w.WriteHeader(http.StatusNoContent)
	})})
	rt.Output = output
	return printing(rt, nil)
}

func TestAChildWhoseParentCannotWriteGoesOn(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, role := range []string{"flooding", "flooding lines"} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), mainVariable+"="+role)
		cmd.Stdout, cmd.Stderr = full, full // as a file is on a disk without room
		if err := cmd.Run(); err != nil {
			t.Errorf("%s: got %v, want an instance that has lived on", role, err)
		}
	}
}

// mainPanicking has handlers that panic, in this process and in one of its own.
func mainPanicking(logger *zap.Logger) error {
	panics := http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	rt := watt.New(
		watt.App{Name: "here", Handler: panics},
		watt.App{Name: "there", Isolation: watt.OwnProcess, Handler: panics},
	)
	rt.Logger = logger
	if err := rt.Start(context.Background()); err != nil {
		return err
	}
	for _, url := range []string{"http://here.watt.local/", "http://there.watt.local/"} {
		resp, err := rt.Env().Get(context.Background(), url)
		if err != nil {
			return err
		}
		resp.Body.Close()
	}
	return rt.Shutdown(context.Background())
}

func TestWithoutALoggerErrorsGoToStandardError(t *testing.T) {
	t.Parallel()
	_, said := bothOf(t, "panicking", os.Args[0])
	for _, app := range []string{"here", "there"} {
		line := fmt.Sprintf("\tERROR\thandler panicked\t{\"app\": %q, \"instance\": 0, \"method\": \"GET\", \"path\": \"/\", \"panic\": \"on purpose\"}\ngoroutine ", app)
		if !strings.Contains(said, line) {
			t.Errorf("got %s\nwithout %q and a stack below it", said, line)
		}
	}
	if strings.Count(said, "\tERROR\t") != 2 || strings.Contains(said, "\tINFO\t") {
		t.Errorf("got %s\nwant two errors, and nothing of an ordinary life", said)
	}
}

func TestALoggerThatDropsEverythingSilencesErrors(t *testing.T) {
	t.Parallel()
	if out, said := bothOf(t, "silenced", os.Args[0]); out+said != "" {
		t.Errorf("got %q, %q", out, said)
	}
}
