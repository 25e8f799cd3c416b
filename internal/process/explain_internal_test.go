//go:build unix

package process

import (
	"errors"
	"os/exec"
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
	for _, c := range []struct {
		got  *ExitError
		want string
	}{
		{explain(killed, "", nil, true), "killed by SIGKILL: the kernel was out of memory for it (OOM kill)"},
		{explain(killed, "", nil, false), "killed by SIGKILL"},
		{explain(killed, "", slow, true), "killed: it was slow"},
		{explain(terminated, "", slow, true), "killed by SIGTERM"},
		{explain(exited, "", nil, true), "exit status 137"},
		{explain(exited, "no database", nil, false), "exit status 137: no database"},
		{explain(exited, "handler panicked\ngoroutine 1 [running]:\nmain.main()\n\tmain.go:7 +0x18", nil, false), "exit status 137"},
		{explain(crash, quit, nil, false), "SIGQUIT: quit"},
		{explain(crash, "runtime: out of memory\n", nil, false), "runtime: out of memory"},
		{explain(nil, "", nil, false), "ended, and somebody else in this program was told how"},
	} {
		if c.got.Reason != c.want {
			t.Errorf("got %q, want %q", c.got.Reason, c.want)
		}
	}
}
