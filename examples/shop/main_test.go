package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	neturl "net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// built is the directory of the program.
var built string

func TestMain(m *testing.M) {
	var err error
	if built, err = os.MkdirTemp("", "shop"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(built)
	os.Exit(code)
}

// program builds the program, once. It is not the test's binary, since in that resize would stay in its process.
var program = sync.OnceValues(func() (string, error) {
	file := filepath.Join(built, "shop")
	out, err := exec.CommandContext(context.Background(), "go", "build", "-o", file, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w: %s", err, out)
	}
	return file, err
})

// command returns the program, to be run with args.
func command(t *testing.T, args ...string) (cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	stderr = new(bytes.Buffer)
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // not for the build, which may take as long
	t.Cleanup(cancel)
	cmd = exec.CommandContext(ctx, file, args...)
	cmd.Stderr = stderr
	return cmd, stderr
}

// TestProgram starts the program, pastes what it prints, and ends it with Ctrl-C.
func TestProgram(t *testing.T) {
	t.Parallel()
	cmd, stderr := command(t, "-addr", "127.0.0.1:0", "-data", t.TempDir())
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for in := bufio.NewScanner(stdout); in.Scan() && !strings.Contains(in.Text(), "-o "); {
		if line, ok := strings.CutPrefix(in.Text(), "  curl "); ok {
			lines = append(lines, line)
		}
	}
	if len(lines) != 6 {
		t.Errorf("got the lines %q, want 6", lines)
	}
	for _, line := range lines {
		paste(t, line)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
		t.Errorf("got %v and %q, want exit status 0 and silence", err, stderr)
	}
}

// paste does what curl would.
func paste(t *testing.T, line string) {
	t.Helper()
	i := strings.LastIndex(line, " ") + 1
	options, url := line[:i], strings.Trim(line[i:], "'")
	method, body := http.MethodGet, io.Reader(http.NoBody)
	options, keyed := strings.CutPrefix(options, `-H 'Idempotency-Key: "1"' `)
	if path, ok := strings.CutPrefix(options, "--data-binary @"); ok {
		f, err := os.Open(filepath.Join("../..", strings.Trim(path, " '")))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		method, body = http.MethodPost, f
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if keyed {
		req.Header.Set("Idempotency-Key", `"1"`)
	}
	if strings.Contains(options, "$TOKEN") {
		req.Header.Set("Authorization", "Bearer "+tokenOf(t, "http://"+req.Host, "1"))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode > 299 {
		t.Errorf("%s: got %s", line, resp.Status)
	}
}

// tokenOf asks the shop at url for a user's token.
func tokenOf(t *testing.T, url, user string) string {
	t.Helper()
	resp, err := http.PostForm(url+"/token", neturl.Values{"user": {user}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	token, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("got %s, %v", resp.Status, err)
	}
	return string(token)
}

// TestProgramRefusesToStart: whatever is wrong, one line says so.
func TestProgramRefusesToStart(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(dir, "blocked", "shop.db")
	if err := os.MkdirAll(blocked, 0o700); err != nil {
		t.Fatal(err)
	}
	noDatabase := filepath.Join(dir, "text")
	if err := os.Mkdir(noDatabase, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(noDatabase, "shop.db"), bytes.Repeat([]byte("text"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	addr := taken.Addr().String()
	for _, test := range []struct {
		args []string
		code int
		want []string
	}{
		{[]string{"-addr", addr, "-data", dir}, 1, []string{addr, "address already in use"}},
		{[]string{"-addr", "127.0.0.1:0", "-data", file}, 1, []string{file, "not a directory"}},
		{[]string{"-addr", "127.0.0.1:0", "-data", "/proc/nothing"}, 1, []string{"/proc/nothing"}},
		{[]string{"-addr", "127.0.0.1:0", "-data", filepath.Dir(blocked)}, 1, []string{blocked, "unable to open"}},
		{[]string{"-addr", "127.0.0.1:0", "-data", noDatabase}, 1, []string{noDatabase, "not a database"}},
		{[]string{"-addr", "nowhere", "-data", dir}, 1, []string{"nowhere"}},
		{[]string{"-data", dir, "extra"}, 2, []string{"extra"}},
	} {
		cmd, stderr := command(t, test.args...)
		err := cmd.Run()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != test.code {
			t.Errorf("%v: got %v, want exit status %d", test.args, err, test.code)
		}
		if got := stderr.String(); strings.Count(got, "\n") != 1 || !strings.HasPrefix(got, "shop: ") {
			t.Errorf("%v: got %q, want one line", test.args, got)
		}
		for _, want := range test.want {
			if !strings.Contains(stderr.String(), want) {
				t.Errorf("%v: got %q, want %q in it", test.args, stderr, want)
			}
		}
	}
	cmd, _ := command(t, "-nonsense")
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
		t.Errorf("-nonsense: got %v, want exit status 2", err)
	}
}

// TestActionsAreThere pastes what is printed for those who run the shop.
func TestActionsAreThere(t *testing.T) {
	t.Parallel()
	rt := newShop(config{addr: "127.0.0.1:0", admin: "127.0.0.1:0", token: "secret", data: t.TempDir()})
	startShop(t, rt)
	lines := regexp.MustCompile(`-X (\S+) .*SHOP_TOKEN" (?:-d '(.*)' )?ADMIN(\S+)`).FindAllStringSubmatch(actions("ADMIN"), -1)
	if len(lines) != 4 {
		t.Errorf("got %q, want 4 lines", lines)
	}
	for _, line := range lines {
		req := httptest.NewRequestWithContext(t.Context(), line[1], "http://127.0.0.1"+line[3], strings.NewReader(line[2]))
		req.Header.Set("Authorization", "Bearer secret")
		w := httptest.NewRecorder()
		rt.Admin.Handler.ServeHTTP(w, req)
		if w.Code > 299 {
			t.Errorf("%s: got %d, %s", line[0], w.Code, w.Body)
		}
	}
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	err = run(t.Context(), newShop(config{addr: taken.Addr().String(), data: t.TempDir()}), t.Output(), false)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("got %v, want an address in use", err)
	}
}
