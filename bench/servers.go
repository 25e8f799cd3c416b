package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	neturl "net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"

	wattlib "github.com/org/watt"
)

// role is what this program does when it is started again as a server.
type role string

const (
	wattPyramid role = "watt"      // a gateway and its apps in one process
	watched     role = "watched"   // the same as watt, with everything that shows what goes on
	recording   role = "recording" // and with the flight recorder
	traced      role = "traced"    // or with a span of every request and call
	gateway     role = "gateway"   // a gateway whose apps are processes
	app         role = "app"

	roleVariable = "BENCH_ROLE"
	appsVariable = "BENCH_APPS" // where a gateway's apps are
)

// play is the program of a server: it prints its address, and ends when its input does, which is when the parent
// closes it or is gone. It reports false if this process is none.
func play() bool {
	r := role(os.Getenv(roleVariable))
	if r == "" && !wattlib.IsChild() {
		return false
	}
	address, end, err := start(r)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return true
	}
	fmt.Println(address)
	_, _ = io.Copy(io.Discard, os.Stdin)
	end()
	return true
}

// start starts what a role is; "" is that of a child.
func start(r role) (address string, end func(), err error) {
	switch r {
	case "":
		for _, rt := range children() {
			err = rt.Run(context.Background()) // it returns only if this is another's child
		}
	case wattPyramid:
		address, end, err = playWatt(pyramidOf("127.0.0.1:0"))
	case watched:
		address, end, err = playWatched(tracedPart, false)
	case recording:
		address, end, err = playWatched(tracedPart, true)
	case traced:
		address, end, err = playWatched(1, false)
	case ownProcesses:
		address, end, err = playWatt(gatewayBeside(wattlib.OwnProcess))
	case inProcess:
		address, end, err = playWatt(gatewayBeside(wattlib.InProcess))
	case goroutines:
		address, end, err = playServer(lightBeside(grinding()))
	case gateway:
		address, end, err = playServer(gatewayTo(strings.Split(os.Getenv(appsVariable), ",")))
	case app:
		address, end, err = playServer(answer(document(600), "application/json"))
	}
	return address, end, err
}

// children are the runtimes whose instances this program is started again for.
func children() []*wattlib.Runtime {
	return []*wattlib.Runtime{milling(wattlib.App{}), funnelling(wattlib.App{}, newHash, 0)}
}

func playWatt(rt *wattlib.Runtime) (string, func(), error) {
	if err := rt.Start(context.Background()); err != nil {
		return "", nil, err
	}
	return rt.Status()[0].Addr, func() { _ = rt.Shutdown(context.Background()) }, nil
}

func playServer(h http.Handler) (string, func(), error) {
	ln, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(ln) }() // it ends with Close
	return ln.Addr().String(), func() { _ = server.Close() }, nil
}

// gatewayTo composes and proxies as the pyramid does, over TCP.
func gatewayTo(apps []string) http.Handler {
	transport := &http.Transport{MaxIdleConnsPerHost: clients, DisableCompression: true}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /home", composing(&http.Client{Transport: transport}, apps))
	to := &neturl.URL{Scheme: "http", Host: apps[0]}
	mux.Handle("GET /orders/", http.StripPrefix("/orders", &httputil.ReverseProxy{
		Transport:  transport,
		BufferPool: &buffers{}, // as pyramid.Proxy has one
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
	}))
	return mux
}

// server is a process that plays a role.
type server struct {
	cmd     *exec.Cmd
	stdin   io.Closer
	address string
}

// startServers starts the others, and then the first, which is told where they are.
func startServers(ctx context.Context, first role, others ...role) ([]*server, error) {
	var all []*server
	var addresses []string
	for _, r := range others {
		s, err := startServer(ctx, r, "")
		if err != nil {
			endServers(all)
			return nil, err
		}
		all, addresses = append(all, s), append(addresses, s.address)
	}
	s, err := startServer(ctx, first, strings.Join(addresses, ","))
	if err != nil {
		endServers(all)
		return nil, err
	}
	return append([]*server{s}, all...), nil
}

func startServer(ctx context.Context, r role, apps string) (*server, error) {
	path, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.CommandContext(ctx, path)}
	s.cmd.Env = append(os.Environ(), roleVariable+"="+string(r), appsVariable+"="+apps)
	s.cmd.Stderr = os.Stderr
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if s.address = strings.TrimSpace(line); err != nil {
		endServers([]*server{s})
		return nil, fmt.Errorf("the %s did not start: %w", r, err)
	}
	return s, nil
}

func endServers(all []*server) {
	for _, s := range all {
		_ = s.stdin.Close()
		_ = s.cmd.Wait()
	}
}

// usage returns the processor time that servers have used, and the memory that they hold, in MiB: what each has to
// itself, and once the file that all of them run, of which there is one copy. It is 0 where the system does not tell.
func usage(all []*server) (cpu time.Duration, memory float64) {
	var file float64
	const tick = 10 * time.Millisecond // USER_HZ is 100 everywhere
	for _, s := range all {
		dir := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
		stat, err := os.ReadFile(dir + "stat")
		if err != nil {
			continue
		}
		if _, rest, ok := bytes.Cut(stat, []byte(") ")); ok {
			if f := strings.Fields(string(rest)); len(f) > 13 {
				user, _ := strconv.Atoi(f[11])
				system, _ := strconv.Atoi(f[12])
				cpu += time.Duration(user+system) * tick
			}
		}
		memory += mebibytes(dir+"status", "RssAnon:")
		file = max(file, mebibytes(dir+"status", "RssFile:"))
	}
	return cpu, memory + file
}

// resident returns the resident memory of a process, in MiB.
func resident(dir string) float64 { return mebibytes(dir+"status", "VmRSS:") }

// memoryOf returns the resident memory of a process, and how much of that is its own: touched by it, and shared with
// nobody.
func memoryOf(pid int) (all, own float64) {
	file := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
	return mebibytes(file, "Rss:"), mebibytes(file, "Private_Dirty:")
}

// mebibytes returns a field of what the system tells of a process, or 0.
func mebibytes(file, field string) float64 {
	status, _ := os.ReadFile(file)
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == field {
			kib, _ := strconv.Atoi(f[1])
			return float64(kib) / 1024
		}
	}
	return 0
}

// buffers is an [httputil.BufferPool].
type buffers struct{ pool sync.Pool }

// Get returns a buffer for one answer.
func (b *buffers) Get() []byte {
	if buf, ok := b.pool.Get().(*[]byte); ok {
		return *buf
	}
	return make([]byte, 32<<10)
}

// Put takes a buffer back.
func (b *buffers) Put(buf []byte) { b.pool.Put(&buf) }
