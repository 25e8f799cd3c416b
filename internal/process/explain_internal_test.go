//go:build unix

package process

import (
	"errors"
	"os/exec"
	"testing"
)

func TestAKillIsForWantOfMemoryIfThereWasOneAndNobodyHereHasKilled(t *testing.T) {
	end := func(script string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", script)
		_ = cmd.Run() // its state says more
		return cmd
	}
	killed, terminated, exited := end("kill -9 $$").ProcessState, end("kill -15 $$").ProcessState, end("exit 137").ProcessState
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
		{explain(nil, "", nil, false), "ended, and somebody else in this program was told how"},
	} {
		if c.got.Reason != c.want {
			t.Errorf("got %q, want %q", c.got.Reason, c.want)
		}
	}
}
