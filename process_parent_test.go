//go:build linux

package watt_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/org/watt"
)

// The test binary is also a program with a main of its own, which is started to be killed.
const (
	programVariable = "WATT_TEST_PROGRAM" // the address that it listens at
	strangeVariable = "WATT_TEST_STRANGE" // its children describe other apps, or do not reach Run
	untoldVariable  = "WATT_TEST_UNTOLD"  // its children get no signal when it dies
)

// program is what that main describes: two public instances in processes of their own.
func program() *watt.Runtime {
	address := os.Getenv(programVariable)
	if address == "" {
		address = "127.0.0.1:0" // never used: a child of another topology asks
	}
	app := watt.App{
		Name: "two", Listen: address, Instances: 2, Isolation: watt.OwnProcess,
		New: func(_ context.Context, env *watt.Env) (http.Handler, error) {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if d, err := time.ParseDuration(r.URL.Path[1:]); err == nil {
					<-time.After(d)
				}
				fmt.Fprint(w, os.Getpid())
			}), nil
		},
	}
	if watt.IsChild() && os.Getenv(strangeVariable) == "table" {
		app.Calls = []string{"three"}
		return watt.New(app, watt.App{Name: "three", Handler: http.NotFoundHandler()})
	}
	return watt.New(app)
}

// runProgram is the main of the program. It reports whether this process is it.
func runProgram() bool {
	if os.Getenv(programVariable) == "" {
		return false
	}
	if watt.IsChild() {
		switch os.Getenv(strangeVariable) {
		case "exit":
			fmt.Fprintln(os.Stderr, "I cannot open the database twice")
			os.Exit(4)
		case "slow":
			select {}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	rt := program()
	if os.Getenv(strangeVariable) == "slow" {
		rt.Update("two", func(a *watt.App) { a.StartTimeout = 300 * time.Millisecond })
	}
	err := rt.Start(ctx)
	if err == nil {
		fmt.Println(rt.Status()[0].Addr)
		err = rt.Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return true
}

// started is a program that runs.
type started struct {
	cmd     *exec.Cmd
	address string
	stderr  *lines
	ended   chan error
}

// lines collects what is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// last takes what is to be done on a thread that lasts: those that locked goroutines have had end with them, and what was
// started there, too.
var last = make(chan func())

func lasting() {
	runtime.LockOSThread()
	for f := range last {
		f()
	}
}

// launch starts the program. Its address is "" if it has not come so far.
func launch(t *testing.T, address string, change func(*exec.Cmd)) *started {
	t.Helper()
	p := &started{stderr: new(lines), ended: make(chan error, 1)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), programVariable+"="+address)
	p.cmd.Stderr = p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if change != nil {
		change(p.cmd)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout = w
	begun := make(chan error)
	last <- func() { begun <- p.cmd.Start() }
	if err := <-begun; err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() { syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) })
	line, _ := bufio.NewReader(r).ReadString('\n')
	p.address = strings.TrimSpace(line)
	go func() {
		io.Copy(io.Discard, r)
		r.Close()
	}()
	return p
}

// pids returns the processes that a started program's instances live in.
func (p *started) pids(t *testing.T) (pids []int) {
	t.Helper()
	for _, other := range processes(t) {
		if other.parent == p.cmd.Process.Pid && other.state != "Z" {
			pids = append(pids, other.pid)
		}
	}
	return pids
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestAParentThatIsKilledLeavesNothingBehindAndANewOneStartsAtOnce(t *testing.T) {
	t.Parallel()
	p := launch(t, "127.0.0.1:0", nil)
	if p.address == "" {
		t.Fatalf("it has not started: %s", p.stderr)
	}
	pids := p.pids(t)
	if len(pids) != 2 {
		t.Fatalf("got processes %v, want two", pids)
	}
	held := make(chan error, 1)
	go func() {
		resp, err := http.Get("http://" + p.address + "/10s")
		if err == nil {
			resp.Body.Close()
		}
		held <- err
	}()
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
	again := launch(t, p.address, nil)
	if again.address != p.address {
		t.Fatalf("got address %q, want %s again: %s", again.address, p.address, again.stderr)
	}
	soon(t, "the end of what the first has left", func() bool { return !slices.ContainsFunc(pids, alive) })
	within(t, held, "the end of the request")
	resp, err := http.Get("http://" + again.address + "/")
	read(t, resp, err)
}

func TestChildrenThatTheSystemDoesNotTellEndWithTheirControlSocket(t *testing.T) {
	t.Parallel()
	p := launch(t, "127.0.0.1:0", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, untoldVariable+"=1") })
	if p.address == "" {
		t.Fatalf("it has not started: %s", p.stderr)
	}
	pids := p.pids(t)
	t.Cleanup(func() {
		for _, pid := range pids {
			if t.Failed() {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	syscall.Kill(p.cmd.Process.Pid, syscall.SIGKILL)
	soon(t, "their end", func() bool { return !slices.ContainsFunc(pids, alive) })
}

func TestCtrlCForTheWholeGroupLetsRequestsFinish(t *testing.T) {
	t.Parallel()
	p := launch(t, "127.0.0.1:0", nil)
	if p.address == "" {
		t.Fatalf("it has not started: %s", p.stderr)
	}
	pids := p.pids(t)
	answers := make(chan string, 8)
	for range cap(answers) {
		conn := dialTCP(t, p.address)
		io.WriteString(conn, "GET /500ms HTTP/1.1\r\nHost: a\r\n\r\n")
		go func() {
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			answers <- read(t, resp, err)
		}()
	}
	soon(t, "the requests to be in progress", func() bool { return established(t, p.address) >= cap(answers) })
	for _, pid := range append(pids, p.cmd.Process.Pid) { // as a terminal does, and a careless script
		syscall.Kill(pid, syscall.SIGINT)
	}
	for range cap(answers) {
		if answer := within(t, answers, "an answer"); answer == "" {
			t.Error("a request was not answered")
		}
	}
	if err := within(t, p.ended, "the end"); err != nil || p.stderr.String() != "" {
		t.Errorf("got %v: %s", err, p.stderr)
	}
	if slices.ContainsFunc(pids, alive) {
		t.Errorf("some of %v are left", pids)
	}
}

func TestASignalToChildrenAloneChangesNothing(t *testing.T) {
	t.Parallel()
	p := launch(t, "127.0.0.1:0", nil)
	if p.address == "" {
		t.Fatalf("it has not started: %s", p.stderr)
	}
	pids := p.pids(t)
	for _, pid := range pids {
		syscall.Kill(pid, syscall.SIGINT)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for _, path := range []string{"/500ms", "/"} { // a child that has begun to drain serves the first, but not the second
		var asking sync.WaitGroup
		for range 8 {
			asking.Go(func() {
				pid, _ := strconv.Atoi(text(client.Get("http://" + p.address + path)))
				if !slices.Contains(pids, pid) {
					t.Errorf("%s: got an answer of process %d, want one of %v", path, pid, pids)
				}
			})
		}
		asking.Wait()
	}
}

// established returns how many connections to a local address are open.
func established(t *testing.T, address string) int {
	t.Helper()
	_, port, _ := net.SplitHostPort(address)
	var number int
	fmt.Sscan(port, &number)
	text, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 3 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && f[3] == "01" {
			n++
		}
	}
	return n
}

func TestAnAddressThatSomebodyElseHasIsAClearError(t *testing.T) {
	t.Parallel()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	first := launch(t, "127.0.0.1:0", nil)
	if first.address == "" {
		t.Fatalf("it has not started: %s", first.stderr)
	}
	taken := map[string]string{"a plain listener": plain.Addr().String(), "a copy of the program": first.address}
	if os.Geteuid() == 0 { // nobody else can be somebody else
		ln := listenAsNobody(t)
		defer ln.Close()
		taken["another user's"] = ln.Addr().String()
	}
	for name, address := range taken {
		second := launch(t, address, nil)
		within(t, second.ended, "the end of the second")
		if said := second.stderr.String(); second.address != "" || !strings.Contains(said, address+" is in use, by another program") {
			t.Errorf("%s: got %q, %s", name, second.address, said)
		}
	}
}

// listenAsNobody makes a listener of another user's, which shares its address with its own kind.
func listenAsNobody(t *testing.T) net.Listener {
	t.Helper()
	made := make(chan net.Listener, 1)
	go func() {
		defer close(made)
		runtime.LockOSThread() // never unlocked: the thread, which is somebody else's now, ends with the goroutine
		const nobody, unchanged = 65534, ^uintptr(0)
		if _, _, failed := syscall.RawSyscall(syscall.SYS_SETRESUID, unchanged, nobody, unchanged); failed != 0 {
			t.Error(failed)
			return
		}
		sharing := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
			c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return err
		}}
		ln, err := sharing.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Error(err)
			return
		}
		made <- ln
	}()
	ln := <-made
	if ln == nil {
		t.FailNow()
	}
	return ln
}

func TestAMainThatDoesSomethingElseInAChildIsExplained(t *testing.T) {
	t.Parallel()
	for strange, want := range map[string][]string{
		"exit":  {"main did not reach Run with these apps", "repeatable", "exit status 4", "I cannot open the database twice"},
		"slow":  {"main did not reach Run with these apps in time", "repeatable"},
		"table": {"of a runtime with other apps", "all but their limits", "it starts the one with processes of their own first"},
	} {
		t.Run(strange, func(t *testing.T) {
			t.Parallel()
			p := launch(t, "127.0.0.1:0", func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, strangeVariable+"="+strange) })
			within(t, p.ended, "the end")
			for _, text := range want {
				if said := p.stderr.String(); !strings.Contains(said, text) {
					t.Errorf("got %s, want %q in it", said, text)
				}
			}
		})
	}
}

func TestAProgramThatWasReplacedOnDiskStartsNoInstance(t *testing.T) {
	t.Parallel()
	program, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "program")
	write := func(name string) {
		t.Helper()
		syscall.ForkLock.RLock() // a process of another test's, forked meanwhile, would keep the file from being run
		defer syscall.ForkLock.RUnlock()
		if err := os.WriteFile(name, program, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write(file)
	p := launch(t, "127.0.0.1:0", func(cmd *exec.Cmd) { cmd.Path = file })
	if p.address == "" {
		t.Fatalf("it has not started: %s", p.stderr)
	}
	write(file + ".new")
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(p.pids(t)[0], syscall.SIGKILL)
	soon(t, "the refusal", func() bool {
		return strings.Contains(p.stderr.String(), `"error": "the file of this program has gone, or been replaced; start it anew"`)
	})
	if left := len(p.pids(t)); left == 0 {
		t.Error("the other instance has gone, too")
	}
}
